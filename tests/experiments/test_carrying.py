"""Runs in their folders: resumed where they were interrupted, held by one process, their results never lost."""

import errno
import itertools
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from experiments.small import small
from rwalk.errors import CheckpointError
from rwalk.experiments import carrying, run, run_all
from rwalk.experiments.carrying import CHECKPOINTS, begun, carry_out, finished, unwritten
from rwalk.experiments.holding import FolderHeldError, held
from rwalk.experiments.results import checksum
from rwalk.training import BasePlugin, CheckpointPlugin, Naive

REPLAY = {"exemplars": 2, "replay_batch_size": 8}
RUNS = {
    "rwalk": small(rwalk={"delta_t": 7}, **REPLAY),
    "joint": small("joint", heads="growing"),
    "lwf": small("lwf", heads="multi", task_labels=True, exemplars=2, replay_batch_size="balanced"),
    "online": small(benchmark="online-digits", exemplars_total=20, sampler="reservoir", n_experiences=4),
}


class Fails(BasePlugin):
    """Raises at a batch, counted in this process."""

    def __init__(self, at):
        self.left = at

    def after_training_iteration(self, strategy, **kwargs):
        self.left -= 1
        if self.left == 0:
            raise ZeroDivisionError


class Once(CheckpointPlugin):
    """Raises after its first checkpoint."""

    def write(self, strategy):
        super().write(strategy)
        raise ZeroDivisionError


def outcome(result):
    return {**result.to_dict(), "seconds": None, "checksum": None}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_failed_twice_ends_as_one_that_did_not(name, tmp_path):
    spec = RUNS[name]
    whole = CheckpointPlugin(tmp_path / "none", every=0)
    expected = run(spec, checkpoint=whole, weights=tmp_path / "whole")
    for batches in (9, 11):
        with pytest.raises(ZeroDivisionError):
            run(spec, plugins=[Fails(batches)], checkpoint=CheckpointPlugin(tmp_path / "c", every=4))
    found = run(spec, plugins=[Fails(0)], checkpoint=CheckpointPlugin(tmp_path / "c", every=4), weights=tmp_path / "w")
    assert outcome(found) == outcome(expected)
    assert (tmp_path / "w").read_bytes() == (tmp_path / "whole").read_bytes()


def test_an_evaluation_that_raises_costs_what_came_after_the_last_checkpoint(tmp_path, monkeypatch):
    expected = run(RUNS["rwalk"])
    evaluations = []
    evaluate = Naive.eval_epoch

    def fail(self, **kwargs):
        evaluations.append(1)
        if len(evaluations) > 7:
            raise RuntimeError("no memory for that")
        return evaluate(self, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(Naive, "eval_epoch", fail)
        with pytest.raises(RuntimeError, match="no memory for that"):
            run(RUNS["rwalk"], checkpoint=CheckpointPlugin(tmp_path, every=5))
    assert outcome(run(RUNS["rwalk"], checkpoint=CheckpointPlugin(tmp_path, every=5))) == outcome(expected)


def test_checkpoints_of_another_run_are_refused(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(small(), plugins=[Fails(5)], checkpoint=CheckpointPlugin(tmp_path, every=4))
    with pytest.raises(CheckpointError, match=r"holds checkpoints of another run, with lr=0\.001 and not 0\.5"):
        run(small(lr=0.5), checkpoint=CheckpointPlugin(tmp_path, every=4))


def test_a_run_in_its_folder_leaves_its_result_and_weights(tmp_path):
    checkpoint = CheckpointPlugin(tmp_path / CHECKPOINTS, every=4)
    result = carry_out(small(), tmp_path, checkpoint=checkpoint)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "weights.safetensors"]
    assert outcome(finished(tmp_path, pytest.fail)) == outcome(result)
    assert not begun(tmp_path)


def test_a_disk_that_is_full_at_the_end_leaves_the_result_in_the_room_reserved_for_it(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(carrying, "write_json", full)
    result = carry_out(small(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert outcome(finished(tmp_path, pytest.fail)) == outcome(result)


def test_a_result_that_cannot_be_written_at_all_is_kept_and_written_by_the_next_try(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    folder = tmp_path / "run"
    folder.mkdir()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(carrying, "write_json", full)
        context.setattr("os.fsync", full)
        with pytest.raises(OSError, match="the result is kept at") as caught:
            carry_out(small(), folder)
    assert str(unwritten(folder)) in str(caught.value)
    assert list(folder.iterdir()) == []
    told = []
    found = finished(folder, told.append)
    assert outcome(found) == outcome(run(small()))
    assert "was written to" in told[0]
    assert not unwritten(folder).exists()


def _sealed(content):
    return json.dumps({**content, "checksum": checksum(content)})


def _breakages():
    def changed(**changes):
        return lambda text: json.dumps({**json.loads(text), **changes})

    return {
        "cut": lambda text: text[: len(text) // 2],
        "empty": lambda text: "",
        "list": lambda text: "[1]",
        "other number": lambda text: text.replace('"seconds": ', '"seconds": 1'),
        "no checksum": lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "checksum"}),
        "old": changed(schema_version=2),
        "new": lambda text: _sealed({**json.loads(text), "schema_version": 4}),
        "old and whole": lambda text: _sealed({**json.loads(text), "schema_version": 2}),
        "no matrix": changed(accuracy_matrix=[]),
        "not square": changed(accuracy_matrix=[[0.5, 0.5]]),
        "text": changed(accuracy_matrix="no"),
        "deep": lambda text: "[" * 100_000,
        "not a number": lambda text: text.replace('"seconds": ', '"seconds": NaN, "a": '),
    }


BREAKAGES = _breakages()


@pytest.fixture(scope="module")
def stored():
    return json.dumps(run(small(epochs=1, n_experiences=2)).to_dict())


@pytest.mark.parametrize("how", BREAKAGES)
def test_a_broken_result_is_named_set_aside_and_made_again(how, stored, tmp_path):
    (tmp_path / "result.json").write_text(BREAKAGES[how](stored))
    told = []
    assert finished(tmp_path, told.append) is None
    assert str(tmp_path / "result.json") in told[0]
    assert "renamed to result.json.broken and is computed again" in told[0]
    assert [path.name for path in tmp_path.iterdir()] == ["result.json.broken"]


def test_many_runs_tell_of_broken_results_and_go_on_from_checkpoints(tmp_path):
    specs = {"a": small(n_experiences=2)}
    (first,) = run_all(specs, [0], folder=tmp_path, jobs=1)
    (file,) = tmp_path.rglob("result.json")
    file.write_text("{")
    with pytest.raises(ZeroDivisionError):
        run(specs["a"], checkpoint=Once(file.parent / CHECKPOINTS, every=4))
    (again,) = run_all(specs, [0], folder=tmp_path, jobs=1)
    assert not again.reused
    assert outcome(again.result) == outcome(first.result)
    assert "is not JSON" in again.notes[0]
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "result.json",
        "result.json.broken",
        "weights.safetensors",
    ]


def _hold(folder, holds, ends):
    with held(Path(folder)):
        holds.set()
        ends.wait(60)


def test_a_folder_is_held_by_one_process_which_is_named(tmp_path):
    folder = tmp_path / "new" / "run"
    context = multiprocessing.get_context("spawn")
    holds, ends = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(str(folder), holds, ends))
    process.start()
    try:
        assert holds.wait(60)
        with pytest.raises(FolderHeldError, match=rf"run is in use by process {process.pid} on "), held(folder):
            pass
        ends.set()
        process.join(60)
        with held(folder):
            assert str(os.getpid()) in (folder / ".lock").read_text()
    finally:
        process.kill()
        process.join()
    assert not (folder / ".lock").exists()


def test_the_lock_of_a_dead_process_holds_nothing(tmp_path):
    (tmp_path / ".lock").write_text("process 1 on nowhere")
    with held(tmp_path / "made" / "for nothing"):
        pass
    with held(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_limit_on_the_size_of_files_is_noticed_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setattr(carrying, "run", lambda *_, **__: pytest.fail("trained for nothing"))
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(27, "File too large")))
    with pytest.raises(OSError, match="File too large"):
        carry_out(small(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def _refusing(number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.skipif(os.name == "nt", reason="locks are others there")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_lock_that_is_not_to_be_had_is_an_error_and_not_another_process(number, tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", _refusing(number))
    with pytest.raises(OSError, match=r"\.lock") as caught, held(tmp_path / "new" / "run"):
        pytest.fail("worked without a lock")
    assert not isinstance(caught.value, FolderHeldError)
    assert caught.value.errno == number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="locks are others there")
@pytest.mark.parametrize("function", ["ftruncate", "write"])
def test_a_disk_without_room_for_the_holders_name_holds_all_the_same(function, tmp_path, monkeypatch):
    with monkeypatch.context() as context:
        context.setattr(os, function, _refusing(errno.ENOSPC))
        with held(tmp_path), pytest.raises(FolderHeldError), held(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="locks are others there")
def test_runs_that_cannot_be_locked_have_failed_and_are_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", _refusing(errno.ENOLCK))
    monkeypatch.setattr("rwalk.experiments.pool.AGAIN", 0)
    (found,) = itertools.islice(run_all({"a": small()}, [0], folder=tmp_path / "runs", jobs=1), 2)
    assert found.error.startswith("OSError: [Errno ")
    assert ".lock" in found.error
    assert (found.folder / "error.log").read_text().startswith(found.error)


def test_where_there_is_no_room_at_all_a_failure_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", _refusing(errno.ENOSPC))
    monkeypatch.setattr(os, "fsync", _refusing(errno.ENOSPC))
    (found,) = run_all({"a": small()}, [0], folder=tmp_path / "runs", jobs=1)
    assert ".result.reserve" in found.error
    assert list(tmp_path.iterdir()) == []
