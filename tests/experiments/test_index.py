"""The index of runs: many processes write it, and it is made again from the folders when it is lost or damaged."""

import multiprocessing
import shutil
import sqlite3
import sys

import pytest

from experiments.small import small
from rwalk.experiments import RunResult, run_all, write_result
from rwalk.experiments.index import INDEX, RunIndex
from rwalk.experiments.pool import LOG, Outcome
from rwalk.metrics import AccuracyMatrix

FAILING = {"model": "experiments.networks:failing", "model_options": {"seed": 1}}


def finished(folder, seed):
    matrix = AccuracyMatrix(2)
    matrix.record(0, [0.9, 0.0])
    matrix.record(1, [0.5, 0.7])
    return Outcome("one", seed, RunResult(small(seed=seed), matrix, 1.0), folder=folder / "runs" / f"run-{seed}")


def bare(rows):
    return [{key: value for key, value in row.items() if key != "written"} for row in rows]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder of real runs, one of which failed, with their index."""
    folder = tmp_path_factory.mktemp("stored")
    specs = {"works": small(), "fails": small("fine-tuning", **FAILING)}
    with RunIndex(folder) as index:
        for outcome in run_all(specs, [0, 1], jobs=1, folder=folder / "runs"):
            index.record([outcome])
    return folder


def test_a_row_tells_what_became_of_a_run(stored):
    with RunIndex(stored) as index:
        rows = {(row["method"], row["seed"]): row for row in index.rows()}
    assert {key: row["status"] for key, row in rows.items()} == {
        ("rwalk", 0): "finished",
        ("rwalk", 1): "finished",
        ("fine-tuning", 0): "finished",
        ("fine-tuning", 1): "failed",
    }
    failed = rows["fine-tuning", 1]
    assert failed["error"] == "ArithmeticError: in the middle of it"
    log = (stored / "runs" / failed["id"] / LOG).read_text()
    assert log.startswith("ArithmeticError: in the middle of it\n{")
    assert "networks.py" in log  # the traceback
    assert rows["rwalk", 0]["average_accuracy"] > 0


@pytest.mark.parametrize("damage", ["lost", "no database", "cut short", "empty"])
def test_what_is_lost_or_damaged_is_made_again_from_the_folders(stored, damage, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(stored, folder)
    path = folder / INDEX
    if damage == "lost":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.write_bytes(b"nothing" * 1000 if damage == "no database" else path.read_bytes()[:3000])
    with RunIndex(stored) as before, RunIndex(folder) as index:
        assert bare(index.rows()) == bare(before.rows())
        assert len(index.told) == (damage in ("no database", "cut short"))
        assert all("damaged" in text for text in index.told)


def _write(folder, first):
    with RunIndex(folder) as index:
        for seed in range(first, first + 10):
            index.record([finished(folder, seed)])


@pytest.mark.skipif(sys.platform == "win32", reason="fork")
def test_any_number_of_processes_may_write(tmp_path):
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_write, args=(tmp_path, 10 * number)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    with RunIndex(tmp_path) as index:
        assert sorted(row["seed"] for row in index.rows()) == list(range(40))
        index.record([finished(tmp_path, 0)])  # again: still each once
        assert len(index.rows()) == 40


def test_where_there_can_be_no_index_the_runs_go_on(tmp_path):
    (tmp_path / INDEX).mkdir()
    write_result(finished(tmp_path, 0).result.to_dict(), tmp_path / "runs" / "run-0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rwalk.experiments.index.TRIES", 1)
        with RunIndex(tmp_path) as index:
            index.record([finished(tmp_path, 1)])
            assert index.rows() == []
            assert "cannot be used" in index.told[0]
            patch.setattr(sqlite3, "connect", lambda *_, **__: pytest.fail("tried again"))
            index.record([finished(tmp_path, 2)])
            assert len(index.told) == 1


def test_a_damaged_index_that_cannot_be_renamed_is_done_without(tmp_path, monkeypatch):
    (tmp_path / INDEX).write_bytes(b"nothing" * 1000)

    def refused(*_):
        raise PermissionError("read only")

    monkeypatch.setattr("pathlib.Path.replace", refused)
    with RunIndex(tmp_path) as index:
        index.record([finished(tmp_path, 1)])
        assert index.rows() == []
        assert [("cannot be used" in text) for text in index.told] == [True]


def test_others_can_read_it_with_sqlite_alone(stored):
    base = sqlite3.connect(stored / INDEX)
    counted = base.execute("SELECT status, count(*) FROM runs GROUP BY status ORDER BY status").fetchall()
    base.close()
    assert counted == [("failed", 1), ("finished", 3)]
