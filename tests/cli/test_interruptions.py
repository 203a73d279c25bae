"""Commands that are interrupted: by errors, by signals, at any moment; and go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.shells import open_shell, write_spec
from rwalk.cli.signals import SignalledError, heeded, when_signalled
from rwalk.training.plugins.checkpoints import Stopped, checkpoints

RUN = "split, rwalk, replay"


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    return open_shell(tmp_path, monkeypatch, capsys)


def test_a_run_is_resumed_by_the_command_and_refused_without_being_asked(shell, tmp_path, monkeypatch):
    spec = write_spec(tmp_path)
    run = ("run", "--spec", spec, "--out", "out", "--checkpoint-every", "5")
    with monkeypatch.context() as context:
        context.setattr("rwalk.experiments.runner.AccuracyMatrix.record", _third_time())
        status, _, err = shell(*run)
    assert (status, err) == (1, "rwalk: error: broken off\n")
    status, _, err = shell(*run)
    assert status == 1
    assert "out holds a run that was interrupted: --resume it, or --overwrite it" in err
    status, _, err = shell(*run, "--set", "lr=0.5", "--resume")
    assert "holds checkpoints of another run, with lr=0.001 and not 0.5" in err
    assert shell(*run, "--resume")[0] == 0
    first = json.loads(Path("out/result.json").read_text())
    assert sorted(path.name for path in Path("out").iterdir()) == ["result.json", "weights.safetensors"]
    assert shell(*run, "--resume")[0] == 0  # it is finished
    assert json.loads(Path("out/result.json").read_text()) == first
    assert "out holds another run" in shell(*run, "--set", "lr=0.5", "--resume")[2]
    assert shell(*run, "--overwrite")[0] == 0
    again = json.loads(Path("out/result.json").read_text())
    assert {**again, "seconds": 0, "checksum": 0} == {**first, "seconds": 0, "checksum": 0}


def test_a_run_that_takes_anothers_place_is_resumed_too(shell, tmp_path, monkeypatch):
    spec = write_spec(tmp_path)
    old = ("run", "--spec", spec, "--out", "out")
    new = (*old, "--set", "epochs=2")
    assert shell(*old, "--checkpoint-every", "5")[0] == 0
    first = Path("out/result.json").read_bytes()
    for every, left in (("0", ["result.json", "weights.safetensors"]), ("5", ["checkpoints"])):
        with monkeypatch.context() as context:
            context.setattr("rwalk.experiments.runner.AccuracyMatrix.record", _third_time())
            assert shell(*new, "--checkpoint-every", every, "--overwrite")[2] == "rwalk: error: broken off\n"
        assert sorted(path.name for path in Path("out").iterdir()) == left  # until there is a checkpoint, the old one
    last = checkpoints("out/checkpoints")[-1].name
    Path("out/result.json").write_bytes(first)  # as if it had ended between the two
    assert "holds checkpoints of another run, with epochs=2 and not 3" in shell(*old, "--epochs", "3", "--resume")[2]
    assert checkpoints("out/checkpoints")[-1].name == last
    assert shell(*new, "--resume")[0] == 0
    assert json.loads(Path("out/result.json").read_text())["config"]["epochs"] == 2
    assert sorted(path.name for path in Path("out").iterdir()) == ["result.json", "weights.safetensors"]


def test_the_weights_of_a_run_go_when_another_takes_its_place(shell, tmp_path):
    run = ("run", "--spec", write_spec(tmp_path), "--out", "out")
    assert shell(*run, "--checkpoint-every", "5")[0] == 0
    assert shell(*run, "--seed", "8", "--overwrite")[0] == 0
    assert [path.name for path in Path("out").iterdir()] == ["result.json"]


def test_a_finished_run_leaves_no_checkpoints_when_asked_for_again(shell, tmp_path, monkeypatch):
    run = ("run", "--spec", write_spec(tmp_path), "--out", "out", "--checkpoint-every", "5")
    with monkeypatch.context() as context:  # as if it had ended before they were gone
        context.setattr("rwalk.training.CheckpointPlugin.clear", lambda self: None)
        assert shell(*run)[0] == 0
    before = Path("out/result.json").read_bytes()
    assert shell(*run, "--resume")[0] == 0
    assert Path("out/result.json").read_bytes() == before
    assert not Path("out/checkpoints").exists()


def _third_time():
    from rwalk.metrics import AccuracyMatrix

    record, calls = AccuracyMatrix.record, []

    def recording(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("broken off")
        return record(self, *arguments)

    return recording


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_training_leaves_a_checkpoint_and_one_line(number, status, shell, tmp_path, monkeypatch):
    from rwalk.training import CheckpointPlugin

    spec = write_spec(tmp_path)
    after_batch, batches = CheckpointPlugin._after_batch, []

    def signalled(self, strategy):
        batches.append(1)
        if len(batches) == 3:
            os.kill(os.getpid(), number)
        after_batch(self, strategy)

    monkeypatch.setattr(CheckpointPlugin, "_after_batch", signalled)
    found, out, err = shell("run", "--spec", spec, "--out", "out", "--checkpoint-every", "100")
    assert (found, out.strip()) == (status, "")
    assert err == f"rwalk: {'terminated' if number == signal.SIGTERM else 'interrupted'}\n"
    assert [path.name for path in checkpoints("out/checkpoints")] == ["checkpoint-000000000003.safetensors"]
    assert [path.name for path in Path("out").iterdir()] == ["checkpoints"]
    assert shell("run", "--spec", spec, "--out", "out", "--resume")[0] == 0


@pytest.mark.skipif(os.name == "nt", reason="workers do not learn of their parent's end there")
def test_workers_of_a_sweep_that_is_ended_leave_neither_locks_nor_reserves(tmp_path):
    plan = {"seeds": 2, "base": {"benchmark": "split-digits", "epochs": 9999, "hidden": [4]}, "methods": ["pi"]}
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    words = ["sweep", "plan.yaml", "--out", "out", "--jobs", "2"]
    command = [sys.executable, "-c", "from rwalk.cli import main; main()", *words]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as sweep:
        waited_for(lambda: len(left(tmp_path)) == 4)
        sweep.terminate()
        assert sweep.communicate(timeout=60)[1] == "rwalk: terminated\n"
    waited_for(lambda: left(tmp_path) == [])


def left(folder):
    """Names of files in the folders of runs."""
    return sorted(path.name for path in (folder / "out" / "runs").glob("*/.*"))


def waited_for(came):
    end = time.monotonic() + 90
    while not came():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_second_signal_does_not_wait():
    with pytest.raises(SignalledError) as caught, heeded(), when_signalled(lambda: True):  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert caught.value.code == 143
    with pytest.raises(SignalledError) as caught, heeded(), when_signalled(lambda: True):  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        raise Stopped
    assert caught.value.code == 130
    before = signal.getsignal(signal.SIGTERM)
    with heeded():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_among_imports_is_one_line():
    begins = "import os, signal, sys; sys.argv = ['rwalk', 'list']; from rwalk.cli import main; import builtins; "
    begins += "take = builtins.__import__\n"
    hook = (
        "def import_(name, *rest, **more):\n"
        "    if name.startswith('torch'): os.kill(os.getpid(), signal.SIGINT)\n"
        "    return take(name, *rest, **more)\n"
        "builtins.__import__ = import_\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", begins + hook], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (130, "rwalk: interrupted\n", "")


def test_runs_that_are_killed_lose_nothing():
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-m", "fuzz.torture", "--kills", "3", "--compare", "0", "--run", RUN]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"in all": 3' in done.stdout
