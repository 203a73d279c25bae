"""A shell for the tests of the command line."""

import sys

import pytest

from rwalk.cli import main

SPEC = "benchmark: split-digits\nmethod: rwalk\nepochs: 1\nn_experiences: 2\nhidden: [16]\nrwalk: {delta_t: 3}\n"


@pytest.fixture
def shell(monkeypatch, capsys, tmp_path):
    """Runs the command in an empty folder; exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["rwalk", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capsys.readouterr()
        return exit_.value.code or 0, out, err

    return call


@pytest.fixture
def spec(tmp_path):
    """A file with the settings of a short run."""
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return str(path)
