"""A shell for the tests of the command line."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from rwalk.cli import commands, main, studies, sweeping, tuning, working

SPEC = "benchmark: split-digits\nmethod: rwalk\nepochs: 1\nn_experiences: 2\nhidden: [16]\nrwalk: {delta_t: 3}\n"

COMPARISON = """
seeds: [0, 4]
against: with exemplars
intransigence: false
base: {benchmark: split-digits, epochs: 1, n_experiences: 2, hidden: [8], rwalk: {delta_t: 3}}
runs:
  with exemplars: {method: rwalk, exemplars: 2, rwalk: {ewc_lambda: 7.0}}
  without: {method: fine-tuning}
"""

SWEEP = """
seeds: 2
base: {epochs: 1, n_experiences: 2, hidden: [8]}
grid: {benchmark: [split-digits, permuted-digits]}
methods:
  fine-tuning: {}
  rwalk: {lambda: [1, 30]}
"""


SHORT = ["--set", "epochs=1", "--set", "hidden=[8]", "--set", "n_experiences=2", "--jobs", "1"]
DIGITS = ["--benchmark", "split-digits"]


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


def open_studies(folder: Path, monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """As ``open_shell``, on a terminal of 80 columns, and with a folder of references of its own."""
    monkeypatch.setattr("rwalk.experiments.references.reference_folder", lambda: folder / "cache")
    opened = open_shell(folder, monkeypatch, capsys)
    for module in (studies, sweeping, tuning):
        monkeypatch.setattr(module, "console", Console(width=80))
    return opened


def write_spec(folder: Path) -> str:
    """A file with the settings of a short run."""
    path = folder / "spec.yaml"
    path.write_text(SPEC)
    return str(path)


def refused(result, message, *, folder=None, holds=()):
    """A non-zero status, one line on standard error, nothing else, and nothing written."""
    status, out, err = result
    assert status == 1
    assert out.strip() == ""
    assert err.startswith("rwalk: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert sorted(path.name for path in (folder or Path()).rglob("*")) == sorted(holds)


def fits_a_terminal(out, stored):
    """No line is longer than 80 columns, nothing is cut off, and figures are in one piece."""
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    for row in stored["rows"]:
        for metric in ("average_accuracy", "forgetting"):
            assert f"{100 * row['mean'][metric]:.1f} ± {100 * row['deviation'][metric]:.1f}" in out
