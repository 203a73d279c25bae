"""Many runs: what fails is reported and the rest goes on; what is finished is used again."""

import json
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from experiments.small import small
from rwalk.experiments import RunSpec, read_result, run, run_all, write_result
from rwalk.experiments.holding import held
from rwalk.experiments.pool import LOG, run_name
from rwalk.experiments.results import RESULT

FAILING = "experiments.networks:failing"
DYING = "experiments.networks:dying"


def carried_out(specs, seeds, **options):
    """Outcomes by label and seed."""
    return {(outcome.label, outcome.seed): outcome for outcome in run_all(specs, seeds, **{"jobs": 1, **options})}


def stored(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def references(tmp_path, monkeypatch):
    """The folder of references, in a place of its own."""
    monkeypatch.setattr("rwalk.experiments.references.reference_folder", lambda: tmp_path / "references")
    return tmp_path / "references"


def test_every_spec_runs_with_every_seed_and_as_it_would_alone():
    specs = {"ours": small(), "theirs": small("fine-tuning", seed=7)}
    found = carried_out(specs, [0, 3])
    assert set(found) == {("ours", 0), ("ours", 3), ("theirs", 0), ("theirs", 3)}
    for (label, seed), outcome in found.items():
        assert (outcome.error, outcome.reused) == (None, False)
        alone = run(specs[label].model_copy(update={"seed": seed}))
        assert outcome.result.spec == alone.spec
        assert outcome.result.matrix.tolist() == alone.matrix.tolist()


def test_a_run_that_fails_is_reported_in_one_line_and_the_rest_goes_on(tmp_path):
    specs = {"fails": small(model=FAILING, model_options={"seed": 1}), "works": small()}
    found = carried_out(specs, [0, 1, 2], folder=tmp_path)
    assert {key for key, outcome in found.items() if outcome.result is None} == {("fails", 1)}
    assert found["fails", 1].error == "ArithmeticError: in the middle of it"
    assert sorted(path.name for path in stored(tmp_path)) == [LOG, *[RESULT] * 5]
    (log,) = tmp_path.rglob(LOG)
    line, config, *rest = log.read_text().splitlines()
    assert (line, log.parent) == (found["fails", 1].error, found["fails", 1].folder)
    assert RunSpec(**json.loads(config)).canonical() == {**specs["fails"].canonical(), "seed": 1}
    assert "and a second line" in rest[-1]
    assert any("networks.py" in entry for entry in rest)


def test_a_run_that_failed_is_tried_again_and_its_log_goes_when_it_works(tmp_path, monkeypatch):
    with monkeypatch.context() as context:
        context.setattr("rwalk.experiments.pool.carry_out", lambda *_, **__: 1 / 0)
        (first,) = carried_out({"one": small()}, [0], folder=tmp_path).values()
    assert first.error == "ZeroDivisionError: division by zero"
    (again,) = carried_out({"one": small()}, [0], folder=tmp_path).values()
    assert (again.error, again.reused) == (None, False)
    assert [path.name for path in stored(tmp_path)] == [RESULT]


def test_a_process_killed_in_the_middle_of_a_run_costs_that_run_only(tmp_path):
    specs = {"dies": small(model=DYING, model_options={"seed": 1}), "works": small("fine-tuning")}
    found = carried_out(specs, [0, 1], folder=tmp_path, jobs=2)
    assert set(found) == {(label, seed) for label in specs for seed in (0, 1)}
    assert {key for key, outcome in found.items() if outcome.error} == {("dies", 1)}
    assert found["dies", 1].error == "its process was killed (out of memory?)"
    assert sum(path.name == "result.json" for path in stored(tmp_path)) == 3
    assert (found["dies", 1].folder / LOG).read_text().startswith("its process was killed")
    for (label, seed), outcome in found.items():
        if (label, seed) != ("dies", 1):
            alone = run(specs[label].model_copy(update={"seed": seed}))
            assert outcome.result.matrix.tolist() == alone.matrix.tolist()


def test_finished_runs_are_used_again_to_the_last_bit_and_not_trained(tmp_path, monkeypatch):
    specs = {"ours": small(exemplars=2, rwalk={"penalty": "proximal"}), "RWalk, S": small("fine-tuning")}
    before = carried_out(specs, [0, 1], folder=tmp_path)
    monkeypatch.setattr("rwalk.experiments.pool.run", lambda *_, **__: pytest.fail("trained for nothing"))
    after = carried_out(specs, [0, 1], folder=tmp_path)
    for key, outcome in after.items():
        assert outcome.reused
        assert outcome.result.spec.canonical() == before[key].result.spec.canonical()
        assert outcome.result.matrix.tolist() == before[key].result.matrix.tolist()
        assert outcome.result.matrix.untrained.tolist() == before[key].result.matrix.untrained.tolist()
        assert outcome.result.metrics == before[key].result.metrics


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 2},
        {"lr": 2e-3},
        {"rwalk": {"delta_t": 3}},
        {"exemplars": 1},
        {"heads": "masked"},
        {"hidden": (8,)},
        {"validation": 0.2},
        {"shuffle_classes": True},
    ],
)
def test_a_run_with_another_setting_is_not_taken_for_a_finished_one(tmp_path, change):
    carried_out({"one": small()}, [0], folder=tmp_path)
    (outcome,) = carried_out({"one": small(**change)}, [0], folder=tmp_path).values()
    assert not outcome.reused
    assert len(stored(tmp_path)) == 2


def test_settings_written_out_are_the_same_run(tmp_path):
    carried_out({"one": small()}, [0], folder=tmp_path)
    written_out = small(**{**small().canonical(), "seed": 5})
    (outcome,) = carried_out({"one": written_out}, [0], folder=tmp_path).values()
    assert outcome.reused


@pytest.mark.parametrize(
    "content", ["", "{", '{"schema_version": 2', "[]", '{"schema_version": 1, "accuracy_matrix": []}']
)
def test_what_is_no_whole_result_is_not_taken_for_one(tmp_path, content):
    (first,) = carried_out({"one": small()}, [0], folder=tmp_path).values()
    (path,) = stored(tmp_path)
    path.write_text(content)
    (again,) = carried_out({"one": small()}, [0], folder=tmp_path).values()
    assert (again.error, again.reused) == (None, False)
    assert read_result(path)["accuracy_matrix"] == first.result.matrix.tolist()


def test_what_an_interrupted_write_leaves_is_no_result(tmp_path):
    carried_out({"one": small()}, [0], folder=tmp_path)
    (path,) = stored(tmp_path)
    path.rename(path.with_name(".result.json.abc123"))
    (again,) = carried_out({"one": small()}, [0], folder=tmp_path).values()
    assert not again.reused
    assert path.is_file()


def test_a_folder_is_named_by_what_its_run_is_and_labels_of_the_same_run_share_it(tmp_path):
    labels = ["RWalk (paper)", "../up", "a/b", "λ=1"]
    found = carried_out({**dict.fromkeys(labels, small("ewc++")), "other": small()}, [0], folder=tmp_path / "runs")
    assert {label for label, _ in found} == {*labels, "other"}
    names = sorted(path.parent.name for path in stored(tmp_path))
    assert all(path.parent.parent == tmp_path / "runs" for path in stored(tmp_path))
    assert len(names) == 2  # each run once
    for name, method in zip(names, ("ewc++", "rwalk"), strict=True):
        assert re.fullmatch(re.escape(method) + r"-seed-0-[0-9a-f]{16}", name)


def test_a_run_that_another_command_carries_out_is_waited_for_and_not_repeated(tmp_path, monkeypatch):
    spec = small()
    folder = tmp_path / run_name(spec)
    result = run(spec)
    monkeypatch.setattr("rwalk.experiments.pool.AGAIN", 0.1)
    monkeypatch.setattr("rwalk.experiments.carrying.run", lambda *_, **__: pytest.fail("trained twice"))
    locked = threading.Event()

    def other():
        with held(folder):
            locked.set()
            time.sleep(0.5)
            write_result(result.to_dict(), folder)

    thread = threading.Thread(target=other)
    thread.start()
    locked.wait()
    (outcome,) = carried_out({"one": spec}, [0], folder=tmp_path).values()
    thread.join()
    assert (outcome.error, outcome.held, outcome.reused) == (None, False, True)
    assert outcome.result.matrix.tolist() == result.matrix.tolist()


def test_intransigence_comes_with_every_result_from_one_reference(references):
    found = carried_out({"one": small(), "two": small("fine-tuning", exemplars=2)}, [0, 1], intransigence=True)
    (kept,) = references.glob("*.json")
    accuracy = json.loads(kept.read_text())["accuracy"]
    for outcome in found.values():
        assert outcome.result.reference == (None, None, accuracy)
        last = outcome.result.matrix.tolist()[-1][-1]
        assert outcome.result.metrics["intransigence"] == pytest.approx(accuracy - last)


def test_a_reference_that_fails_is_reported_by_the_runs_that_need_it(references):
    specs = {"fails": small(model=FAILING, model_options={"seed": 0}), "works": small()}  # references train under 0
    found = carried_out(specs, [1], intransigence=True)
    assert found["fails", 1].error == "ArithmeticError: in the middle of it"
    assert found["works", 1].result.metrics["intransigence"] is not None


def test_a_worker_whose_parent_ended_while_it_was_importing_ends_at_once():
    code = (
        "import os, time; from rwalk.experiments.watching import end_with_parent; end_with_parent({}); time.sleep(30)"
    )
    gone = subprocess.run([sys.executable, "-c", code.format("os.getpid()")], timeout=90, check=False)  # not its parent
    assert gone.returncode == 128 + signal.SIGTERM
    here = subprocess.Popen([sys.executable, "-c", code.format("os.getppid()").replace("30", "2")])
    assert here.wait(90) == 0
