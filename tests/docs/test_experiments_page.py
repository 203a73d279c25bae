"""docs/experiments.md: its code runs, its commands exist, its table names every key."""

import re
from pathlib import Path

import pytest
import typer
import yaml

from rwalk.cli.commands import app
from rwalk.experiments import METHODS, RunSpec, run
from rwalk.experiments.comparison import build_comparison

PAGE = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text(encoding="utf-8")


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_code_runs_and_the_method_of_the_page_learns(tmp_path, monkeypatch, capsys):
    names = {"folder": tmp_path}
    for block in blocks("python"):
        exec(compile(block, "experiments.md", "exec"), names)
    assert names["result"].spec == names["spec"]
    assert len(names["outcomes"]) == 4
    assert len(names["reference"]) == len(list((tmp_path / "references").glob("*.json"))) == 5
    assert "fine-tuning" in capsys.readouterr().out
    (method,) = names["METHODS"]
    monkeypatch.setitem(METHODS, method.name, method)
    settings = {"benchmark": "split-digits", "epochs": 1, "hidden": (8,)}
    free, held = (run(RunSpec(method="pull", options={"strength": s}, **settings)).matrix.tolist() for s in (0.0, 1e3))
    assert free == run(RunSpec(method="fine-tuning", **settings)).matrix.tolist()
    assert held != free


def test_the_table_names_every_key_of_a_spec():
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == set(RunSpec.model_fields)


def test_the_comparison_of_the_page_is_one():
    (block,) = blocks("yaml")
    assert list(build_comparison(yaml.safe_load(block)).specs()) == ["fine-tuning-S", "RWalk-S"]


@pytest.mark.parametrize("line", [line for line in PAGE.splitlines() if line.startswith("rwalk ")])
def test_every_command_of_the_page_is_understood(line):
    name, *words = line.split()[1:]
    commands = typer.main.get_command(app)
    context = commands.make_context("rwalk", [name, *words])
    command = commands.get_command(context, name)
    command.make_context(name, list(words))
