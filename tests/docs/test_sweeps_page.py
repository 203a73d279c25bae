"""docs/sweeps.md: its code runs, its sweep is one, its commands exist."""

import re
from pathlib import Path

import pytest
import typer
import yaml

from rwalk.cli.commands import app
from rwalk.experiments.sweep import load_sweep

PAGE = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text(encoding="utf-8")


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_code_runs(capsys):
    for block in blocks("python"):
        exec(compile(block, "sweeps.md", "exec"), {})
    assert re.fullmatch(r"(fine-tuning|rwalk, λ 10?) 0\.\d+\n" * 3, capsys.readouterr().out)


def test_the_sweep_of_the_page_is_one():
    (block,) = blocks("yaml")
    sweep = load_sweep(yaml.safe_load(block))
    assert (len(sweep.seeds), len(sweep.specs())) == (3, 2 * (1 + 3 * 2 + 2))


@pytest.mark.parametrize("line", [line for line in PAGE.splitlines() if line.startswith("rwalk ")])
def test_every_command_of_the_page_is_understood(line):
    name, *words = line.split()[1:]
    commands = typer.main.get_command(app)
    context = commands.make_context("rwalk", [name, *words])
    commands.get_command(context, name).make_context(name, list(words))
