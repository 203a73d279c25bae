"""Results on disk: complete or not there."""

import json
import math
import os
from pathlib import Path

import pytest

from rwalk.experiments import read_result, write_result
from rwalk.experiments.results import RESULT, check_folder

RUN = {"accuracy_matrix": [[0.5]], "seconds": 1.0, "name": "Δ"}


def files(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def test_what_is_written_is_read_back_from_the_folder_or_the_file(tmp_path):
    path = write_result(RUN, tmp_path / "new" / "run")
    assert path == tmp_path / "new" / "run" / RESULT
    assert read_result(path) == read_result(path.parent) == RUN
    assert json.loads(path.read_text(encoding="utf-8")) == RUN
    assert files(path.parent) == [Path(RESULT)]


def test_a_result_can_be_read_by_others(tmp_path):
    assert write_result(RUN, tmp_path).stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("bad", [{"accuracy_matrix": [[math.nan]]}, {"accuracy_matrix": object()}])
def test_what_cannot_be_json_leaves_nothing_not_even_a_folder(tmp_path, bad):
    with pytest.raises((ValueError, TypeError)):
        write_result(bad, tmp_path / "run")
    assert files(tmp_path) == []


@pytest.mark.parametrize("step", ["replace", "open"])
def test_a_failure_while_writing_leaves_the_old_result_and_no_rubbish(tmp_path, monkeypatch, step):
    write_result(RUN, tmp_path)

    def fail(*args, **kwargs):
        raise OSError("no space left")

    with monkeypatch.context() as context:
        context.setattr(Path, step, fail)
        with pytest.raises(OSError, match="no space left"):
            write_result({**RUN, "seconds": 2.0}, tmp_path)
    assert files(tmp_path) == [Path(RESULT)]
    assert read_result(tmp_path) == RUN


def test_an_interrupt_while_writing_leaves_no_rubbish(tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_result(RUN, tmp_path)
    assert files(tmp_path) == []


def test_another_run_is_not_overwritten_unless_asked(tmp_path):
    assert check_folder(tmp_path / "run", overwrite=False) == tmp_path / "run"
    assert files(tmp_path) == []
    write_result(RUN, tmp_path / "run")
    with pytest.raises(FileExistsError, match=r"run holds another run \(result\.json\).*--overwrite"):
        check_folder(tmp_path / "run", overwrite=False)
    assert check_folder(tmp_path / "run", overwrite=True) == tmp_path / "run"
    assert read_result(tmp_path / "run") == RUN


def test_other_files_in_the_folder_do_no_harm(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    check_folder(tmp_path, overwrite=False)
    write_result(RUN, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("below", ["", "run", "deep/run"])
def test_a_file_where_the_folder_would_be_is_refused_beforehand(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="file is a file: --out names a folder"):
        check_folder(tmp_path / "file" / below, overwrite=True)


def test_a_relative_folder_is_fine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert check_folder("run", overwrite=False) == Path("run")


def test_what_is_no_result_is_not_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no result\.json at"):
        read_result(tmp_path)
    for content, message in (("{", "is not JSON"), ("[1]", "not a stored run"), ('{"a": 1}', "no accuracy_matrix")):
        (tmp_path / RESULT).write_text(content)
        with pytest.raises(ValueError, match=message):
            read_result(tmp_path)
