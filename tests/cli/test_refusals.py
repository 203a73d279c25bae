"""One line about everything that cannot be, and nothing half-written."""

import json
import sys
from pathlib import Path

import pytest

from cli.shells import open_shell, refused, write_spec


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    return open_shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def spec(tmp_path):
    return write_spec(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--benchmark", "cifar"],
            "unknown benchmark 'cifar': choose one of split-digits, ",
        ),
        (["--method", "ewc"], "unknown method 'ewc' (did you mean 'ewc++'?): choose one of fine-tuning, rwalk, "),
        (["--ewc-alpha", "1.5"], "ewc_alpha=1.5"),
        (["--ewc-alpha", "-0.1"], "ewc_alpha=-0.1"),
        (["--delta-t", "0"], "delta_t=0"),
        (["--ewc-lambda", "-1"], "ewc_lambda=-1.0"),
        (["--ewc-lambda", "nan"], "ewc_lambda=nan"),
        (["--exemplars", "-2"], "exemplars=-2"),
        (["--epochs", "0"], "epochs=0"),
        (["--lr", "0"], "lr=0.0"),
        (["--optimizer", "lbfgs"], "optimizer='lbfgs'"),
        (["--n-experiences", "11"], "n_experiences=11"),
        (["--seed", "-1"], "seed=-1"),
        (["--device", "nonsense"], "device='nonsense'"),
        (["--device", "meta"], "device='meta' cannot be used"),
        (["--threads", "99999999"], "threads=99999999"),
        (["--out", "/dev/null/run"], "is a file: --out names a folder"),
        (["--spec", "missing.yaml"], "no spec file at missing.yaml"),
        (["--reference", "missing"], "no result.json at missing"),
        (["--model", "text-mlp"], "inputs of torch.float32: text-mlp takes token ids"),
    ],
)
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(shell, options, message):
    base = {"--benchmark": "split-digits", "--method": "rwalk", "--epochs": "1", "--out": "out"}
    base.update(zip(options[::2], options[1::2], strict=True))
    refused(shell("run", *(word for pair in base.items() for word in pair)), message)


def test_a_run_without_a_benchmark_says_so(shell):
    refused(shell("run", "--out", "out"), "no benchmark given: name one")


def test_missing_data_is_refused_in_one_line_with_what_to_set(shell, monkeypatch, tmp_path):
    monkeypatch.setenv("RWALK_DATA_DIR", str(tmp_path / "nowhere"))
    result = shell("run", "--benchmark", "split-mnist", "--method", "rwalk", "--out", "out")
    refused(result, f"no folder {tmp_path / 'nowhere' / 'mnist'}: RWALK_DATA_DIR=")


def test_a_folder_that_holds_another_run_is_refused_before_any_training(shell, spec, monkeypatch):
    assert shell("run", "--spec", spec, "--out", "out")[0] == 0
    before = Path("out/result.json").read_text()
    with monkeypatch.context() as context:
        context.setattr("rwalk.cli.commands.carry_out", lambda *_, **__: pytest.fail("trained for nothing"))
        result = shell("run", "--spec", spec, "--out", "out", "--seed", "8")
    refused(result, "out holds another run (result.json)", folder=Path("out"), holds=["result.json"])
    assert Path("out/result.json").read_text() == before
    assert shell("run", "--spec", spec, "--out", "out", "--seed", "8", "--overwrite")[0] == 0
    assert json.loads(Path("out/result.json").read_text())["config"]["seed"] == 8


def test_a_file_in_the_folders_place_is_refused(shell, spec):
    refused(shell("run", "--spec", spec, "--out", spec), "is a file: --out names a folder", holds=["spec.yaml"])


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_nowhere_is_named(shell, spec):
    Path("link").symlink_to("nowhere")
    message = "link is a link to nowhere, which is not there: make that folder first\n"
    for folder in ("link", "link/run"):
        status, _, err = shell("run", "--spec", spec, "--out", folder)
        assert (status, err.endswith(message), err.count("\n")) == (1, True, 1)
    assert not Path("nowhere").exists()


def test_a_training_that_fails_leaves_nothing(shell, spec, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("in the middle of it")

    monkeypatch.setattr("rwalk.training.template.Naive.training_epoch", fail)
    refused(shell("run", "--spec", spec, "--out", "out"), "in the middle of it", holds=["spec.yaml"])


def test_a_missing_extra_is_named(shell, monkeypatch):
    monkeypatch.delitem(sys.modules, "rwalk.cli.commands", raising=False)
    monkeypatch.setitem(sys.modules, "typer", None)
    refused(shell("list"), "the command rwalk needs typer; install it with: pip install 'rwalk[cli]'")
