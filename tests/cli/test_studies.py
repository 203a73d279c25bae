"""The commands that carry out many runs: what they show, store, and refuse."""

import json
from pathlib import Path

import pytest

from cli.shells import COMPARISON, DIGITS, SHORT, SWEEP, fits_a_terminal, open_studies, refused
from rwalk.experiments import RunSpec, run
from rwalk.experiments import reproduce as tables_of
from rwalk.report import collect
from rwalk.streams import benchmark

TABLE = """
title: A small table
source: Somebody 2018
seeds: 2
base: {benchmark: split-digits, n_experiences: 2, hidden: [8], epochs: 1}
runs:
  ours: {method: rwalk}
  theirs: {method: fine-tuning}
published:
  ours: {average_accuracy: [0.8, 0.05], forgetting: 0.1}
protocol: [a note]
quick: {seeds: 1}
"""

FAILING = ["--set", "model=experiments.networks:failing", "--set", "model_options={seed: 1}"]


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    return open_studies(tmp_path, monkeypatch, capsys)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A folder of tables with one in it."""
    monkeypatch.setattr(tables_of, "_folder", lambda: tmp_path / "tables")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "small.yaml").write_text(TABLE)


def test_methods_are_compared_over_seeds_with_and_without_exemplars(shell):
    result = shell("compare", *DIGITS, "--methods", "fine-tuning, rwalk", "--exemplars", "0,2", "--seeds", "2",
                   "--out", "out", *SHORT)  # fmt: skip
    status, out, err = result
    assert (status, err) == (0, "")
    stored = json.loads(Path("out/comparison.json").read_text())
    fits_a_terminal(out, stored)
    assert stored["against"] == "rwalk-S"
    rows = {row["label"]: row for row in stored["rows"]}
    assert list(rows) == ["fine-tuning", "rwalk", "fine-tuning-S", "rwalk-S"]
    for label, row in rows.items():
        spec = RunSpec(benchmark="split-digits", method=label.removesuffix("-S"), exemplars=2 * label.endswith("-S"),
                       epochs=1, hidden=(8,), n_experiences=2, seed=1)  # fmt: skip
        assert row["seeds"]["1"]["average_accuracy"] == run(spec).metrics["average_accuracy"]
        assert row["mean"]["intransigence"] is not None
        assert f"{100 * row['mean']['average_accuracy']:.1f} ± {100 * row['deviation']['average_accuracy']:.1f}" in out
    assert "Less rwalk-S, seed by seed" in out
    assert " *" not in out  # all of them at a strength that was chosen for this benchmark
    assert Path("out/plane.svg").is_file()
    assert len(list(Path("out/runs").rglob("result.json"))) == 8
    again = shell("compare", *DIGITS, "--methods", "rwalk,fine-tuning", "--exemplars", "0,2", "--seeds", "2",
                  "--out", "out", *SHORT)  # fmt: skip
    assert "8 of 8 runs were finished before." in again[1]


def test_a_picture_of_other_figures_goes(shell, table):
    words = ["compare", *DIGITS, "--methods", "fine-tuning", "--seeds", "1", "--out", "out", *SHORT]
    reproduced = ["reproduce", "small", "--out", "out", "--jobs", "1"]
    assert [shell(*words)[0], shell(*reproduced)[0]] == [0, 0]
    Path("out/other.svg").write_text("another's")
    assert len(list(Path("out").glob("*.svg"))) == 3
    Path("tables/small.yaml").write_text(TABLE.partition("published:")[0] + "intransigence: false\npublished: {}\n")
    assert [shell(*words, "--no-intransigence")[0], shell(*reproduced)[0]] == [0, 0]
    assert [path.name for path in Path("out").glob("*.svg")] == ["other.svg"]


def test_a_row_tells_that_its_strength_was_not_chosen_for_the_benchmark(shell):
    status, out, _ = shell("compare", *DIGITS, "--methods", "mas,rwalk-facil,rwalk", "--seeds", "1", "--jobs", "1",
                           "--no-intransigence", "--out", "out", *SHORT)  # fmt: skip
    assert status == 0
    assert all(f"{name} * " in out for name in ("mas", "rwalk-facil"))
    assert "rwalk * " not in out
    told = "* at its preset's strength, which was not chosen for this benchmark: `rwalk tune` chooses, --set or --spec"
    assert told in out  # in a pipe one line, however long
    stored = json.loads(Path("out/comparison.json").read_text())
    assert {row["label"]: row["tuned"] for row in stored["rows"]} == {"mas": False, "rwalk-facil": False, "rwalk": True}


def test_a_file_says_what_is_compared_and_options_change_all_runs(shell):
    Path("plan.yaml").write_text(COMPARISON)
    assert shell("compare", "--spec", "plan.yaml", "--out", "out", "--jobs", "1")[0] == 0
    stored = json.loads(Path("out/comparison.json").read_text())
    first, second = stored["rows"]
    assert stored["against"] == "with exemplars"
    assert first["config"]["rwalk"]["ewc_lambda"] == 7.0
    assert list(first["seeds"]) == ["0", "4"]
    assert first["mean"]["intransigence"] is None  # the file wants none
    assert not Path("out/plane.svg").exists()
    assert list(second["differences"]) == ["average_accuracy", "forgetting", "learning_accuracy"]
    options = ["--set", "rwalk.ewc_lambda=2", "--set", "exemplars=1", "--seeds", "1", "--against", "without"]
    assert shell("compare", "--spec", "plan.yaml", "--out", "other", "--jobs", "1", *options, "--intransigence")[0] == 0
    changed = json.loads(Path("other/comparison.json").read_text())
    config = changed["rows"][0]["config"]
    assert (config["rwalk"]["ewc_lambda"], config["rwalk"]["delta_t"], config["exemplars"]) == (2.0, 3, 1)
    assert changed["against"] == "without"
    assert changed["rows"][0]["mean"]["intransigence"] is not None


def test_a_failed_run_is_named_the_rest_is_stored_and_the_exit_status_says_so(shell):
    options = ["--methods", "rwalk", "--seeds", "3", "--out", "out", "--no-intransigence", *SHORT, *FAILING]
    status, out, err = shell("compare", *DIGITS, *options)
    assert (status, err) == (1, "")
    assert "failed: rwalk, seed 1: ArithmeticError: in the middle of it" in out
    assert "2 seeds" in out
    assert "error.log" in out
    (row,) = json.loads(Path("out/comparison.json").read_text())["rows"]
    assert list(row["seeds"]) == ["0", "2"]
    assert row["errors"] == {"1": "ArithmeticError: in the middle of it"}
    assert len(list(Path("out").rglob("*.json"))) == 3
    assert len(list(Path("out").rglob("error.log"))) == 1


def test_tables_are_listed_and_reproduced(shell, table):
    status, out, _ = shell("reproduce")
    assert status == 0
    assert "small" in out
    assert "A small table" in out
    status, out, err = shell("reproduce", "small", "--out", "results", "--jobs", "1")
    assert (status, err) == (0, "")
    stored = json.loads(Path("results/small.json").read_text())
    fits_a_terminal(out, stored)
    assert (stored["seeds"], stored["quick"], stored["reused"]) == ([0, 1], False, 0)
    ours = stored["rows"][0]
    difference = ours["mean"]["average_accuracy"] - 0.8
    assert ours["published"]["average_accuracy"]["difference"] == pytest.approx(difference)
    for text in ("80.0 ± 5.0", f"{100 * difference:+.1f}", "- a note", "A small table; 2 seeds"):
        assert text in out
    assert Path("results/small.svg").is_file()
    assert shell("reproduce", "small", "--out", "results", "--jobs", "1", "--quick")[0] == 0
    quick = json.loads(Path("results/small-quick.json").read_text())
    assert (quick["seeds"], quick["quick"], quick["reused"]) == ([0], True, 2)
    assert json.loads(Path("results/small.json").read_text()) == stored
    status, out, _ = shell("reproduce", "small", "--out", "some", "--jobs", "1", "--seeds", "1", "--row", "ours")
    some = json.loads(Path("some/small.json").read_text())
    assert status == 0
    assert ([row["label"] for row in some["rows"]], some["seeds"]) == (["ours"], [0])
    assert some["rows"][0]["seeds"]["0"]["average_accuracy"] == ours["seeds"]["0"]["average_accuracy"]
    assert collect([Path("some")]).commands == ["rwalk reproduce small --row ours --seeds 1 --out some"]
    (again,) = collect([Path("results/small-quick.json")]).commands
    assert again == "rwalk reproduce small --quick --out results"
    assert (
        shell("reproduce", "small", "--quick", "--out", "two", "--jobs", "1", "--seeds", "2", "--row", "theirs")[0] == 0
    )
    (again,) = collect([Path("two")]).commands
    assert again == "rwalk reproduce small --quick --row theirs --seeds 2 --out two"
    assert shell("reproduce", "--page", "page.md", "--out", "results")[:2] == (0, "page.md\n")
    page = Path("page.md").read_text()
    assert page.count("## A small table") == 2
    assert "](results/small.svg)" in page
    status, out, _ = shell("reproduce", "--page", "new/page.md", "--out", "results", "--json")
    assert (status, json.loads(out)) == (0, {"page": "new/page.md"})
    assert Path("new/page.md").read_text().startswith("# Reproduced tables")


def test_a_full_disk_keeps_the_pages_and_pictures_that_are_there_and_names_what_it_could_not_write(
    shell, table, monkeypatch
):
    assert shell("reproduce", "small", "--out", "results", "--jobs", "1", "--seeds", "1")[0] == 0

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for target, command in {
        "page.md": ["reproduce", "--page", "page.md", "--out", "results"],
        "plane.svg": ["report", "results", "--out", "plane.svg", "--figure", "plane"],
        "table.csv": ["report", "results", "--out", "table.csv"],
        "new/page.html": ["report", "results", "--out", "new/page.html"],
    }.items():
        if not target.startswith("new"):
            Path(target).write_text("old")
        before = sorted(Path().rglob("*"))
        status, out, err = shell(*command)
        assert (status, out) == (1, "")
        assert err == f"rwalk: error: [Errno 28] No space left on device: '{target}'\n"
        assert sorted(Path().rglob("*")) == before
        assert target.startswith("new") or Path(target).read_text() == "old"


def test_a_table_is_made_of_the_runs_that_are_finished(shell, table):
    """Rows without one are left out, those with fewer seeds say so, and nothing is trained or changed."""
    refused(
        shell("reproduce", "small", "--out", "out", "--finished"),
        "no run of table small is finished",
        holds=["small.yaml", "tables"],
    )
    few = ["reproduce", "small", "--out", "out", "--jobs", "1"]
    assert shell(*few, "--seeds", "1", "--row", "ours")[0] == 0
    status, out, err = shell("reproduce", "small", "--out", "out", "--finished")
    assert (status, err) == (0, "")
    assert "A small table; 1 seed," in out
    stored = json.loads(Path("out/small.json").read_text())
    assert [(row["label"], list(row["seeds"])) for row in stored["rows"]] == [("ours", ["0"])]
    assert (stored["reused"], stored["wall_seconds"], stored["seeds"]) == (1, 0.0, [0])
    assert shell(*few, "--row", "theirs")[0] == 0
    runs = {path: path.stat().st_mtime_ns for path in Path("out/runs").rglob("*") if path.is_file()}
    out = shell("reproduce", "small", "--out", "out", "--finished")[1]
    assert runs == {path: path.stat().st_mtime_ns for path in Path("out/runs").rglob("*") if path.is_file()}
    assert "1 to 2 seeds" in out
    both = json.loads(Path("out/small.json").read_text())
    assert [(row["label"], list(row["seeds"])) for row in both["rows"]] == [("ours", ["0"]), ("theirs", ["0", "1"])]
    assert both["rows"][0]["mean"] == stored["rows"][0]["mean"]
    assert shell("reproduce", "--page", "page.md", "--out", "out")[0] == 0
    page = Path("page.md").read_text()
    assert "1 to 2 seeds, 0.0 minutes (3 of 3 runs were finished before)" in page
    assert "| ours (1 of 2 seeds) |" in page


def test_interrupted_work_goes_on_where_it_stopped(shell, monkeypatch):
    options = ["--methods", "fine-tuning", "--seeds", "3", "--no-intransigence", "--out", "out", *SHORT]
    real, calls = run, []

    def interrupted(spec, **rest):
        calls.append(spec.seed)
        if spec.seed == 2:
            raise KeyboardInterrupt
        return real(spec, **rest)

    with monkeypatch.context() as context:
        context.setattr("rwalk.experiments.carrying.run", interrupted)
        assert shell("compare", *DIGITS, *options)[0] != 0
    assert calls == [0, 1, 2]
    assert not Path("out/comparison.json").exists()
    assert "2 of 3 runs were finished before." in shell("compare", *DIGITS, *options)[1]


def test_exemplars_may_be_set_for_all_methods_of_a_comparison(shell):
    options = ["--methods", "fine-tuning,pi", "--set", "exemplars=2", "--seeds", "1", "--no-intransigence", *SHORT]
    assert shell("compare", *DIGITS, *options, "--out", "out")[0] == 0
    rows = json.loads(Path("out/comparison.json").read_text())["rows"]
    assert {row["label"]: row["config"]["exemplars"] for row in rows} == {"fine-tuning": 2, "pi": 2}


def test_the_benchmark_that_is_named_is_the_one_that_runs(shell):
    options = ["--methods", "fine-tuning", "--seeds", "1", "--no-intransigence", "--out", "out", *SHORT]
    assert shell("compare", "--benchmark", "permuted-digits", *options)[0] == 0
    (row,) = json.loads(Path("out/comparison.json").read_text())["rows"]
    assert row["config"]["benchmark"] == benchmark("permuted-digits").name


def test_a_sweep_is_carried_out_and_goes_on_where_it_stopped(shell):
    Path("sweep.yaml").write_text(SWEEP)
    assert shell("sweep", "sweep.yaml", "--seeds", "1", "--out", "out", "--jobs", "1")[0] == 0
    status, out, err = shell("sweep", "sweep.yaml", "--out", "out", "--jobs", "1")
    assert (status, err) == (0, "")
    assert "6 of 12 runs were finished before." in out
    stored = json.loads(Path("out/sweep.json").read_text())
    fits_a_terminal(out, stored)
    assert [row["label"] for row in stored["rows"]][:2] == ["fine-tuning, split-digits", "fine-tuning, permuted-digits"]
    assert len(list(Path("out/runs").rglob("result.json"))) == len(list(Path("out/runs").iterdir())) == 12
    assert len(Path("out/results.csv").read_text().splitlines()) == 13
    assert Path("out/index.sqlite").is_file()
    status, out, err = shell("sweep", "sweep.yaml", "--out", "out", "--json")
    rows = json.loads(out)
    assert (status, err, len(rows)) == (0, "", 12)
    assert {(row["strength"], row["status"]) for row in rows if row["method"] == "rwalk"} == {
        (1.0, "finished"),
        (30.0, "finished"),
    }


def test_a_single_seed_has_no_deviation(shell):
    options = ["--methods", "fine-tuning,rwalk", "--seeds", "1", "--no-intransigence", "--out", "out", *SHORT]
    status, out, _ = shell("compare", *DIGITS, *options)
    assert status == 0
    assert "±" not in out
    assert "In %, 1 seed" in out
