"""Data and settings that do not fit each other: one line through the command, and nothing written."""

from pathlib import Path

import pytest
import torch

from cli.shells import open_shell, refused
from rwalk.experiments import read_result

RUN = ["--method", "rwalk", "--epochs", "1", "--out", "out", "--set", "hidden=[8]"]


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    return open_shell(tmp_path, monkeypatch, capsys)


def folder(name, *, test_labels=(0, 1, 2, 3), labelled=True):
    """A dataset in the hub's layout, in a folder of csv files."""
    Path(name).mkdir()
    for part, labels in {"train": (0, 1, 2, 3) * 3, "test": test_labels}.items():
        rows = ["text,label", *(f"word{label} word{label},{label}" for label in labels)]
        Path(name, f"{part}.csv").write_text("\n".join(row if labelled else row.split(",")[0] for row in rows) + "\n")
    return f"split:./{name}"


def written():
    return {str(path) for path in Path().rglob("*") if path.name == "result.json" or str(path) == "out"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"test_labels": (0, 1, 2)}, "class"),
        ({"labelled": False}, "label"),
    ],
)
def test_data_that_cannot_be_learned_is_refused(shell, data, message):
    name = folder("data", **data)
    status, out, err = shell("run", "--benchmark", name, "--model", "text-mlp", *RUN[:6])
    assert (status, out.strip(), err.count("\n")) == (1, "", 1)
    assert err.startswith("rwalk: error: ")
    assert message in err
    assert not written()


def test_text_in_a_folder_is_learned(shell):
    options = ["--model", "text-mlp", "--n-experiences", "2", "--exemplars", "2", "--sampler", "entropy"]
    assert shell("run", "--benchmark", folder("data"), *options, *RUN[:6])[0] == 0
    assert read_result("out")["config"]["benchmark"] == "split:./data"


def test_text_for_a_network_that_reads_numbers_is_refused(shell):
    status, _, err = shell("run", "--benchmark", folder("data"), "--n-experiences", "2", *RUN)
    assert (status, err.count("\n")) == (1, 1)
    assert "holds token ids of texts; choose 'text-mlp'" in err
    assert not written()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n-experiences", "11"], "n_experiences=11"),
        (["--set", "sizes=[5,6]"], "sizes"),
        (["--set", "class_order=[0,1]"], "class_order"),
        (["--set", "class_order=[0,0,1,2,3,4,5,6,7,8]"], "class_order"),
        (["--exemplars", "2", "--sampler", "plane-distance", "--set", "sampler_layer=fc9"], "no layer 'fc9'"),
        (["--exemplars", "2", "--sampler", "best"], "unknown sampler 'best'"),
        (["--exemplars", "2", "--sampler", "reservoir"], "exemplars=2: sampler 'reservoir'"),
        (["--exemplars", "2", "--set", "exemplars_total=9"], "exemplars=2, exemplars_total=9"),
        (["--heads", "multi"], "heads='multi': a head for each task needs task_labels=true"),
        (["--heads", "two"], "heads='two'"),
        (["--model", "transformer"], "unknown model 'transformer'"),
        (["--model", "nowhere.to:find"], "cannot import nowhere.to"),
        (["--model", "paper-cnn"], "takes images"),
        (["--model", "os:system"], "model='os:system': system() takes at most 1 argument (2 given); it is called as"),
        (["--method", "mas", "--set", "options.strength=abc"], "options.strength='abc': expected a number\n"),
        (
            ["--exemplars", "2", "--sampler", "entropy", "--set", "sampler_layer=0"],
            "sampler_layer=0: expected text; put it in quotes",
        ),
        (["--set", "hidden=16"], "hidden=16: expected a list, such as [16]"),
        (["--set", "rwalk=5"], "rwalk=5"),
        (["--set", "path=x"], "unknown key 'path'"),
        (["--set", "hidden=[8"], "no value that YAML knows"),
        (["--set", "nonsense"], "--set 'nonsense': expected KEY=VALUE"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(shell, options, message):
    refused(shell("run", "--benchmark", "split-digits", *RUN, *options), message)


def test_more_exemplars_than_a_class_has_are_told_of_and_all_are_kept(shell, caplog):
    options = ["--exemplars", "500", "--n-experiences", "2", "--seed", "1"]
    assert shell("run", "--benchmark", "split-digits", *RUN, *options)[0] == 0
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len({message.split()[1] for message in messages}) == 10
    assert all("samples for per_class=500: all of them are kept" in message for message in messages)


def test_a_dataset_out_of_reach_is_refused_with_the_way_out(shell, monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route to the hub\nand much more")

    monkeypatch.delenv("RWALK_DATA_DIR", raising=False)
    monkeypatch.setattr("datasets.load_dataset", unreachable)
    message = "cannot load owner/name from the hub (no route to the hub); set RWALK_DATA_DIR to a folder that holds"
    refused(shell("run", "--benchmark", "split:owner/name", *RUN), message)


def test_options_win_over_settings_and_settings_over_the_file(shell):
    Path("spec.yaml").write_text("benchmark: split-digits\nmethod: rwalk\nepochs: 5\nbatch_size: 32\nlr: 0.1\n")
    options = ["--set", "epochs=1", "--set", "batch_size=64", "--batch-size", "128", "--set", "rwalk.delta_t=3"]
    assert shell("run", "--spec", "spec.yaml", "--out", "out", *options, "--ewc-lambda", "2")[0] == 0
    config = read_result("out")["config"]
    assert (config["epochs"], config["batch_size"], config["lr"]) == (1, 128, 0.1)
    assert (config["rwalk"]["delta_t"], config["rwalk"]["ewc_lambda"]) == (3, 2.0)


@pytest.mark.parametrize("change", [["--set", "validation=0.2"], ["--set", "class_order=[9,8,7,6,5,4,3,2,1,0]"]])
def test_a_reference_over_another_stream_is_refused(shell, change):
    base = ["run", "--benchmark", "split-digits", "--n-experiences", "2", "--epochs", "1", "--set", "hidden=[8]"]
    assert shell(*base, "--method", "joint", "--out", "joint")[0] == 0
    status, _, err = shell(*base, "--method", "rwalk", "--out", "out", "--reference", "joint", *change)
    assert (status, err.count("\n")) == (1, 1)
    assert f"--reference needs a run with {change[1].partition('=')[0]}=" in err
    assert written() == {"joint/result.json"}


def test_references_can_be_trained_along(shell, monkeypatch, tmp_path):
    monkeypatch.setattr("rwalk.experiments.references.reference_folder", lambda: tmp_path / "kept")
    options = ["--n-experiences", "2", "--intransigence"]
    assert shell("run", "--benchmark", "split-digits", *RUN, *options)[0] == 0
    stored = read_result("out")
    assert len(list((tmp_path / "kept").glob("*.json"))) == len(stored["reference"]) == 2
    expected = stored["reference"][1] - stored["accuracy_matrix"][1][1]
    assert stored["intransigence"] == pytest.approx(expected)
    assert torch.tensor(stored["reference"]).min() > 0
