"""What is found in folders: runs, comparisons, tunings, reproductions, sweeps."""

import itertools
import json
import shlex
from dataclasses import replace

import pytest

from report.runs import HOSTILE, comparison, result, run_folder
from rwalk.errors import CheckpointError
from rwalk.experiments import RunSpec, load_comparison, summarise
from rwalk.experiments.pool import Outcome
from rwalk.experiments.reproduce import load_table, report, tables
from rwalk.experiments.results import checksum, write_json, write_result
from rwalk.report import collect, figures_of
from rwalk.report.findings import headline
from rwalk.report.formats import as_markdown


def test_a_run(tmp_path):
    study = collect([run_folder(tmp_path / "run", keep=0.7)])
    assert (study.kind, [group.label for group in study.groups]) == ("run", ["rwalk"])
    (run,) = study.groups[0].runs
    expected = result(keep=0.7)
    assert run.metrics["forgetting"] == expected.metrics["forgetting"]
    assert run.matrix == expected.matrix.tolist()
    assert run.record.model_dump() == expected.record
    assert study.versions["torch"]


def test_the_command_runs_the_same_again(tmp_path):
    place = run_folder(tmp_path / "my run", keep=0.7, hidden=(8, 8), rwalk={"delta_t": 5}, exemplars=2)
    (command,) = collect([place]).commands
    words = shlex.split(command)
    assert words[:2] == ["rwalk", "run"]
    assert words[-2:] == ["--out", str(place)]
    assert "--intransigence" in words
    from rwalk.cli.options import settings

    given = dict(zip(words[2:6:2], words[3:6:2], strict=True))
    told = settings([word for before, word in itertools.pairwise(words) if before == "--set"])
    again = RunSpec(benchmark=given["--benchmark"], method=given["--method"], **told)
    assert again == result(hidden=(8, 8), rwalk={"delta_t": 5}, exemplars=2).spec


def test_a_comparison_finds_the_runs_of_each_label(tmp_path):
    labels = {"weak": {"method": "fine-tuning", "keep": 0.4}, "strong / λ": {"method": "rwalk", "keep": 0.9}}
    study = collect([comparison(tmp_path, labels, against="strong / λ")])
    assert (study.kind, study.against) == ("comparison", "strong / λ")
    weak, strong = study.groups
    assert [run.seed for run in strong.runs] == [0, 1, 2]
    assert strong.runs[1].matrix == result(seed=1, keep=0.9).matrix.tolist()
    assert weak.differences["average_accuracy"].mean < 0
    assert strong.spread("forgetting")[0] < weak.spread("forgetting")[0]


def test_the_plan_of_a_comparison_makes_the_same_specs(tmp_path):
    labels = {HOSTILE: {"keep": 0.4, "rwalk": {"ewc_lambda": 7.0}}, "b": {"method": "pi", "exemplars": 2}}
    (command,) = collect([comparison(tmp_path / "out", labels, seeds=2)]).commands
    start, _, rest = command.partition("\n")
    plan, _, last = rest.rpartition("\nEND\n")
    assert start == "cat > plan.yaml <<'END'"
    assert shlex.split(last) == ["rwalk", "compare", "--spec", "plan.yaml", "--out", str(tmp_path / "out")]
    (tmp_path / "plan.yaml").write_text(plan)
    again = load_comparison(tmp_path / "plan.yaml")
    assert again.seeds == (0, 1)
    assert again.against == "b"
    for label, settings in labels.items():
        assert again.specs()[label].canonical() == result(**settings).spec.canonical()


def test_a_tuning(tmp_path):
    labels = {
        f"rwalk.ewc_lambda={v}": {"rwalk": {"ewc_lambda": v}, "keep": k, "validation": 0.1}
        for v, k in ((1.0, 0.5), (3.0, 0.8))
    }
    study = collect([comparison(tmp_path, labels, against="rwalk.ewc_lambda=3.0", summary="tuning.json")])
    assert (study.kind, study.best, study.metric) == ("tuning", "λ=3.0", "average_accuracy")
    words = shlex.split(study.commands[0])
    assert words[:2] == ["rwalk", "tune"]
    assert "rwalk.ewc_lambda=1.0,3.0" in words
    assert "validation=0.1" in words


def test_the_strength_of_any_method_is_shown_as_one(tmp_path):
    labels = {f"options.strength={v}": {"method": "mas", "options": {"strength": v}} for v in (1.0, 3.0)}
    study = collect([comparison(tmp_path, labels, against="options.strength=3.0", summary="tuning.json")])
    assert ([group.label for group in study.groups], study.best) == (["λ=1.0", "λ=3.0"], "λ=3.0")


def test_a_reproduction(tmp_path):
    name = next(name for name in tables() if "singlehead" in name)
    table = load_table(name)
    outcomes = [Outcome(label, seed, result(seed=seed)) for label in table.runs for seed in (0, 1)]
    rows = summarise(outcomes, list(table.runs))
    stored = report(name, table, rows, quick=False, wall_seconds=60.0)
    write_json(stored, tmp_path / f"{name}.json")
    for place in (tmp_path, tmp_path / f"{name}.json"):
        study = collect([place])
        assert (study.kind, study.title, study.wall_seconds) == ("reproduction", table.title, 60.0)
        known = next(group for group in study.groups if group.published)
        assert known.published["forgetting"] == (
            stored["rows"][study.groups.index(known)]["published"]["forgetting"]["value"],
            None,
        )
        assert study.commands[0].startswith(f"rwalk reproduce {name}")
    write_json({**stored, "table": "another"}, tmp_path / "another.json")
    with pytest.raises(ValueError, match=r"another\.json.*name one of them"):
        collect([tmp_path])


def test_folders_without_a_summary_are_labelled_by_what_differs(tmp_path):
    for seed in (0, 1):
        for strength in (1.0, 3.0):
            run_folder(tmp_path / f"a{strength}" / str(seed), seed=seed, rwalk={"ewc_lambda": strength})
        run_folder(tmp_path / "b" / str(seed), seed=seed, method="fine-tuning")
    study = collect([tmp_path])
    assert study.kind == "runs"
    assert [(group.label, len(group.runs)) for group in study.groups] == [
        ("rwalk, λ=1", 2),
        ("rwalk, λ=3", 2),
        ("fine-tuning", 2),
    ]


def test_a_run_that_is_there_twice_counts_once_and_is_told_of(tmp_path):
    bare = result(seed=1)
    stored = replace(bare, reference=None).to_dict()
    write_result(stored, tmp_path / "a")
    assert stored["intransigence"] is None
    for place, seed in (("b", 1), ("c", 1), ("d", 0)):
        run_folder(tmp_path / place, seed=seed)
    run_folder(tmp_path / "e", seed=1, method="fine-tuning")
    study = collect([tmp_path])
    ours, other = study.groups
    assert [run.seed for run in ours.runs] == [0, 1]
    assert [run.seed for run in other.runs] == [1]
    assert ours.runs[1].metrics["intransigence"] is not None
    values = [result(seed=seed).metrics["average_accuracy"] for seed in (0, 1)]
    assert ours.spread("average_accuracy") == pytest.approx((sum(values) / 2, abs(values[0] - values[1]) / 2**0.5))
    assert study.notes == ["2 runs are left out: they are there more than once, with the same settings and seed."]


def test_several_places_join_and_keep_apart_what_is_called_alike(tmp_path):
    study = collect([run_folder(tmp_path / "one"), run_folder(tmp_path / "two", keep=0.4)])
    assert [group.label for group in study.groups] == ["rwalk (one)", "rwalk (two)"]


def test_what_is_called_alike_in_folders_called_alike_stays_apart(tmp_path):
    places = [
        comparison(tmp_path / place / "runs1", {"ours": {"keep": keep}}) for place, keep in (("a", 0.9), ("b", 0.4))
    ]
    file = places[0] / "comparison.json"
    stored = json.loads(file.read_text())
    write_json({**stored, "rows": [{**stored["rows"][0], "tuned": False}]}, file)
    study = collect(places)
    assert [group.label for group in study.groups] == ["ours (runs1)", "ours (runs1) (2)"]
    forgetting = [group.runs[0].metrics["forgetting"] for group in study.groups]
    assert forgetting == [result(keep=keep).metrics["forgetting"] for keep in (0.9, 0.4)]
    assert [group.tuned for group in study.groups] == [False, None]


def test_labels_are_shown_as_text_and_stay_different(tmp_path):
    long = "x" * 300
    study = collect(
        [comparison(tmp_path, {HOSTILE: {}, long + "1": {"keep": 0.5}, long + "2": {"keep": 0.6}}, seeds=1)]
    )
    labels = [group.label for group in study.groups]
    assert len(set(labels)) == 3
    assert all(label.isprintable() and len(label) < 130 for label in labels)


def test_a_damaged_run_is_left_out_and_told_of(tmp_path):
    run_folder(tmp_path / "whole")
    run_folder(tmp_path / "torn", seed=1)
    file = tmp_path / "torn" / "result.json"
    file.write_text(file.read_text().replace("0.9", "0.8", 1))
    study = collect([tmp_path])
    assert len(study.groups[0].runs) == 1
    assert "does not match its checksum" in study.notes[0]
    (tmp_path / "whole" / "result.json").unlink()
    with pytest.raises(CheckpointError, match=r"no run in .* can be read: .*checksum"):
        collect([tmp_path])


def test_a_run_of_a_newer_version_is_left_out_and_told_of(tmp_path):
    file = run_folder(tmp_path / "new") / "result.json"
    stored = {**json.loads(file.read_text()), "schema_version": 4}
    file.write_text(json.dumps({**stored, "checksum": checksum(stored)}))
    with pytest.raises(CheckpointError, match=r"new.result\.json: schema_version=4: expected 3; a newer version"):
        collect([tmp_path])
    run_folder(tmp_path / "whole")
    assert "result.json: schema_version=4: expected 3" in collect([tmp_path]).notes[0]


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"rows": 3}', '{"rows": [{"label": 1}]}', '{"rows": [], "x": NaN}', "nothing"]
)
def test_what_is_no_summary_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "comparison.json").write_text(content)
    with pytest.raises(CheckpointError) as caught:
        collect([tmp_path])
    assert "\n" not in str(caught.value)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not there"):
        collect([tmp_path / "gone"])
    with pytest.raises(FileNotFoundError, match=r"no result\.json in"):
        collect([tmp_path])


def test_a_summary_without_its_runs_still_has_figures(tmp_path):
    comparison(tmp_path / "full", {"a": {}, "b": {"keep": 0.5}})
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "comparison.json").write_text((tmp_path / "full" / "comparison.json").read_text())
    study = collect([tmp_path / "bare"])
    assert study.groups[0].runs[0].matrix is None
    assert study.groups[0].spread("average_accuracy") is not None
    assert json.loads((tmp_path / "bare" / "comparison.json").read_text())["rows"][0]["label"] == "a"


def test_a_sweep(tmp_path):
    comparison(
        tmp_path, {"a": {"keep": 0.5}, "b": {"keep": 0.8, "rwalk": {"ewc_lambda": 9.0}}}, seeds=2, summary="sweep.json"
    )
    stored = json.loads((tmp_path / "sweep.json").read_text())
    plan = {"seeds": [0, 1], "methods": {"rwalk": {"lambda": [3.0, 9.0]}}}
    write_json({"sweep": plan, "wall_seconds": 3.0, "rows": stored["rows"]}, tmp_path / "sweep.json")
    study = collect([tmp_path])
    assert (study.kind, [len(group.runs) for group in study.groups]) == ("sweep", [2, 2])
    assert study.groups[1].runs[0].matrix == result(keep=0.8).matrix.tolist()
    (command,) = study.commands
    assert json.loads(command.split("<<'END'\n")[1].split("\nEND")[0]) == plan
    assert command.endswith(f"rwalk sweep plan.yaml --out {tmp_path}")


def test_a_strength_looked_for_task_by_task(tmp_path):
    spec = result(validation=0.1).spec
    searches = {
        str(seed): {
            "config": spec.canonical(),
            "strengths": [8.0, 4.0, 2.0],
            "plasticity": [0.9, 0.9, 0.9],
            "trials": [[], [[8.0, 0.6], [4.0, 0.8 + seed / 10]], [[4.0, 0.5], [2.0, 0.85]]],
            "accuracy_matrix": result(seed=seed).matrix.tolist(),
            "seconds": 2.0,
        }
        for seed in (0, 1)
    }
    write_json({"search": "continual", "best": "rwalk.ewc_lambda=2", "searches": searches}, tmp_path / "tuning.json")
    study = collect([tmp_path])
    assert (study.kind, study.best) == ("tuning", "λ=2")
    assert study.groups[0].runs[1].metrics["forgetting"] == result(seed=1).metrics["forgetting"]
    chart = figures_of(study)[0]
    assert chart.key == "search"
    second = chart.series[0]
    assert (second.name, list(second.x)) == ("task 2", [4.0, 8.0])
    assert list(second.y) == pytest.approx([85.0, 60.0])
    assert study.commands[0].startswith("rwalk tune --benchmark split-digits --method rwalk --set")
    assert "--grid" not in study.commands[0]


def searched(folder, **search):
    """What a race that took 10 and 0.1 in front leaves: a λ between them, which was not trained."""
    spec = result(validation=0.1, rwalk={"ewc_lambda": 100.0}).spec
    trials = [[], [[10.0, 0.9], [0.1, 0.9]], [[10.0, 0.9], [0.1, 0.9]]]
    found = {
        str(seed): {"config": spec.canonical(), "trials": trials, "trainings": 5, "seconds": 2.0,
                    "accuracy_matrix": result(seed=seed).matrix.tolist()} | search
        for seed in (0, 1)
    }  # fmt: skip
    write_json({"search": "race", "best": "rwalk.ewc_lambda=1", "searches": found}, folder / "tuning.json")
    return collect([folder])


def test_a_strength_that_was_chosen_and_not_trained_has_no_figures(tmp_path):
    study = searched(tmp_path)
    assert headline(study) == "λ=1 is chosen on held-out data"
    (group,) = study.groups
    assert group.label == "each seed's λ in front"
    assert "ewc_lambda" not in group.config["rwalk"]
    assert group.config["rwalk"]["delta_t"] == result().spec.rwalk_config.delta_t
    page = as_markdown(study)
    assert page.startswith("# λ=1 is chosen on held-out data\n")
    assert "| each seed's λ in front |" in page


def test_the_command_of_a_search_has_what_it_was_asked_for_also_in_older_files(tmp_path):
    asked = {"keep": 3, "start": 10.0, "end": 0.1, "factor": 0.01, "tolerance": 0.2}
    (command,) = searched(tmp_path, search=asked).commands
    told = " --search race --keep 3 --start 10.0 --end 0.1 --decay 0.01 --tolerance 0.2 --seeds 2 "
    assert told in command
    assert "ewc_lambda" not in command


def test_a_label_with_several_seeds_is_run_again_with_all_of_them(tmp_path):
    for seed in (0, 3):
        run_folder(tmp_path / str(seed), seed=seed, keep=0.7)
    (command,) = collect([tmp_path]).commands
    assert command.endswith(f"rwalk compare --spec plan.yaml --out {tmp_path}")
    assert json.loads(command.split("<<'END'\n")[1].split("\nEND")[0])["seeds"] == [0, 3]


def test_a_label_of_which_every_run_failed_is_left_out_of_the_plan_which_says_so(tmp_path):
    comparison(tmp_path, {"a": {}, "b": {"method": "pi"}}, seeds=2)
    stored = json.loads((tmp_path / "comparison.json").read_text())
    failed = {"label": HOSTILE, "config": None, "seeds": {}, "errors": {"0": "no", "1": "no"}}
    write_json({**stored, "rows": [*stored["rows"], failed]}, tmp_path / "comparison.json")
    (command,) = collect([tmp_path]).commands
    remark, start, _ = command.split("\n", 2)
    assert remark.startswith("# Not in this plan, as no run of it tells its settings")
    assert "</script>" in remark
    assert start == "cat > plan.yaml <<'END'"
    assert list(json.loads(command.split("<<'END'\n")[1].split("\nEND")[0])["runs"]) == ["a", "b"]
