"""``rwalk inspect`` and ``rwalk diff``."""

import json
import re

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


def test_inspect_says_what_is_held_and_what_is_left(state):
    found = json.loads(run("inspect", state / "one", "--json"))
    whole = found["held_layers"][""]
    shown = run("inspect", state / "one")
    line = next(line for line in shown.splitlines() if line.startswith("all "))
    assert [f"{100 * whole[key]:.1f} %" for key in ("share", "held", "free", "saturated")] == re.findall(
        r"[\d.]+ %", line
    )[:4]
    assert "warning: saved 1 steps into a task" in run("inspect", state / "other")


def test_a_state_file_becomes_a_page_and_pictures(state):
    pytest.importorskip("jinja2", reason="jinja2 is not installed")
    run("inspect", state / "one", "--html", state / "a.html")
    run("report", state / "one", "--out", state / "b.html")
    page = (state / "a.html").read_text()
    assert page == (state / "b.html").read_text()
    assert "\x1b" not in page
    assert "[bold]?[31mred[/red]" in page
    assert "of the weights are held" in page
    run("report", state / "one", "--out", state / "a.svg", "--figure", "plasticity")
    assert "free" in (state / "a.svg").read_text()
    result = CliRunner().invoke(app, ["report", str(state / "one"), str(state / "other")])
    assert "report it alone" in str(result.exception)
    (state / "w").write_text("no weights")
    result = CliRunner().invoke(app, ["inspect", str(state / "one"), "--weights", str(state / "w")])
    assert "is no safetensors file" in str(result.exception)
