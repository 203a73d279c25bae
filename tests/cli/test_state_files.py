"""``rwalk inspect`` and ``rwalk diff``."""

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from rwalk import RWalk, RWalkConfig
from rwalk.cli.commands import app
from rwalk.errors import StateError

HOSTILE = "[bold]\x1b[31mred[/red]"


@pytest.fixture
def state(tmp_path):
    model = nn.ModuleDict({"body": nn.Linear(3, 4), HOSTILE: nn.Linear(4, 2)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(delta_t=2))
    for _ in range(5):
        optimizer.zero_grad()
        model[HOSTILE](model["body"](torch.ones(2, 3))).square().sum().backward()
        optimizer.step()
    rwalk.consolidate()
    rwalk.save(tmp_path / "one")
    optimizer.step()
    rwalk.config = rwalk.config.replace(ewc_lambda=7.0)
    rwalk.save(tmp_path / "other")
    return tmp_path


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_inspect_says_what_is_in_a_file(state):
    found = json.loads(run("inspect", state / "one", "--json"))
    assert (found["tasks"], found["steps"], found["schema"], found["config"]["delta_t"]) == (1, 5, 2, 2)
    assert found["elements"] == 3 * 4 + 4 + 4 * 2 + 2
    assert sum(found["layers"].values()) == pytest.approx(1.0)
    weight = found["parameters"]["body.weight"]
    assert weight["shape"] == [4, 3]
    assert 0 <= found["age"] < 600
    assert weight["norms"]["anchor"] > 0
    shown = run("inspect", state / "one")
    assert "every byte verified" in shown
    assert "1 tasks, 5 steps" in shown
    assert "\x1b[31m" not in shown
    assert "[bold]" in shown


def test_diff_says_what_differs(state):
    assert run("diff", state / "one", state / "one") == "the same state\n"
    found = json.loads(run("diff", state / "one", state / "other", "--json", code=1))
    assert found["counters"] == {"steps": [5, 6], "task_steps": [0, 1], "window_steps": [0, 1]}
    assert found["config"] == {"ewc_lambda": [0.1, 7.0]}
    assert found["parameters"]["body.weight"]["loss_change"]["distance"] > 0
    assert "ewc_lambda: 0.1 → 7.0" in run("diff", state / "one", state / "other", code=1)


def test_a_damaged_file_is_refused(state):
    content = bytearray((state / "one").read_bytes())
    content[-3] ^= 1
    (state / "one").write_bytes(content)
    result = CliRunner().invoke(app, ["inspect", str(state / "one")])
    assert isinstance(result.exception, StateError)
    assert "does not match its checksum" in str(result.exception)
