"""What a command reads it does not write over."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cli.shells import open_shell, write_spec
from rwalk import RWalk

LOST = "this file is read here and would be lost: name another one"
PLAN = {"seeds": 1, "base": {"benchmark": "split-digits", "n_experiences": 2}, "methods": ["fine-tuning"]}


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    return open_shell(tmp_path, monkeypatch, capsys)


def kept(result, *files):
    """The command was refused in a line, and the files hold what they held before."""
    status, out, err = result
    assert (status, out) == (1, "")
    assert LOST in err
    assert err.count("\n") == 1
    for file, content in files:
        assert file.read_bytes() == content


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "state", "--html", "state"],
        ["inspect", "state", "--html", "folder/../state"],
        ["inspect", "state", "--html", "link"],
        ["inspect", "state", "--weights", "weights", "--html", "weights"],
        ["report", "state", "--format", "html", "--out", "state"],
        ["report", "state", "--format", "svg", "--out", "weights", "--weights", "weights", "--figure", "plasticity"],
        ["report", "plasticity.svg", "--format", "svg", "--out", "."],
    ],
)
def test_a_state_file_and_its_models_weights(shell, command):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    rwalk.protect([torch.ones(4, 3)])
    rwalk.save("state")
    rwalk.save("plasticity.svg")
    save_file(model.state_dict(), "weights")
    Path("folder").mkdir()
    Path("link").symlink_to("state")
    files = [(file, file.read_bytes()) for file in map(Path, ("state", "plasticity.svg", "weights"))]
    kept(shell(*command), *files)


def test_stored_results(shell):
    assert shell("run", "--spec", write_spec(Path()), "--out", "out")[0] == 0
    result = Path("out/result.json")
    files = [(result, result.read_bytes())]
    for place in ("out", "out/result.json"):
        kept(shell("report", place, "--format", "html", "--out", "out/result.json"), *files)
        kept(shell("report", place, "--format", "md", "--out", "out/result.json"), *files)


def test_a_reference(shell):
    short = ["--spec", write_spec(Path()), "--out", "out"]
    assert shell("run", *short, "--method", "joint")[0] == 0
    result = Path("out/result.json")
    for named in ("out", "out/result.json"):
        refused = shell("run", *short, "--reference", named, "--overwrite")
        kept(refused, (result, result.read_bytes()))


def test_plans_and_tables(shell):
    Path("sweep.json").write_text(json.dumps(PLAN))
    kept(shell("sweep", "sweep.json", "--out", "."), (Path("sweep.json"), json.dumps(PLAN).encode()))
    Path("comparison.json").write_text("{}")
    kept(shell("compare", "--spec", "comparison.json", "--out", "."), (Path("comparison.json"), b"{}"))
    kept(shell("reproduce", "--page", "comparison.json", "--out", "."), (Path("comparison.json"), b"{}"))
