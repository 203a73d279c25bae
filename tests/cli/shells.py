"""A shell for the tests of the command line."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from rwalk.cli import commands, main, studies, sweeping, tuning, working

SPEC = "benchmark: split-digits\nmethod: rwalk\nepochs: 1\nn_experiences: 2\nhidden: [16]\nrwalk: {delta_t: 3}\n"


def open_shell(folder: Path, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """What runs the command in a folder and returns exit status, standard output and standard error."""
    monkeypatch.chdir(folder)
    for module in (commands, studies, sweeping, tuning):
        monkeypatch.setattr(module, "console", Console(width=200))
    monkeypatch.setattr(working, "EVERY", float("inf"))  # however slow the machine is

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rwalk", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        return exit_.value.code or 0, out, err

    return call


def write_spec(folder: Path) -> str:
    """A file with the settings of a short run."""
    path = folder / "spec.yaml"
    path.write_text(SPEC)
    return str(path)
