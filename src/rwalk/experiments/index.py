"""An index of the runs in a folder: SQLite, written by any number of commands, made again from the folders if lost."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from rwalk.errors import CheckpointError
from rwalk.experiments.pool import LOG, Outcome
from rwalk.experiments.results import RESULT, RunResult, read_result
from rwalk.experiments.summary import METRICS

__all__ = ["INDEX", "RunIndex"]

INDEX = "index.sqlite"
BUSY = 30.0  # seconds to wait for another process that writes
TRIES = 5
COLUMNS = ("id", "status", "benchmark", "method", "seed", *METRICS, "seconds", "error", "config", "written")
TABLE = f"""CREATE TABLE IF NOT EXISTS runs (
  id TEXT PRIMARY KEY, status TEXT NOT NULL, benchmark TEXT, method TEXT, seed INTEGER,
  {", ".join(f"{metric} REAL" for metric in METRICS)}, seconds REAL, error TEXT, config TEXT, written REAL)"""

T = TypeVar("T")
Row = dict[str, Any]


class RunIndex:
    """What became of each run of a folder, to look things up in; the folders themselves are what counts.

    The table ``runs`` has a row for each run folder under ``runs``: ``status`` is ``finished`` or ``failed``. Any
    number of processes of one machine may write (write-ahead log, and each waits for the other). An index that is
    missing or damaged is made again from the folders. Where SQLite cannot lock, as on some network disks, none is
    kept.

    Args:
        folder: Holds ``runs`` and the index.

    Attributes:
        told: Why there is no index, or what was wrong with it; empty if all is well.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / INDEX
        self.told: list[str] = []
        self._base: sqlite3.Connection | None = None
        self._given_up = False
        if not self._attempt(_has_table, False):
            self.rebuild()

    def __enter__(self) -> RunIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def record(self, outcomes: Iterable[Outcome]) -> None:
        """Write down what became of some runs."""
        self._write([_row_of(outcome) for outcome in outcomes if outcome.folder is not None and not outcome.held])

    def rows(self) -> list[Row]:
        """All runs, by name."""
        return self._attempt(_all, [])

    def rebuild(self) -> None:
        """Read every run folder again."""
        self._write(list(_found(self.folder / "runs")), anew=True)

    def _write(self, rows: list[Row], *, anew: bool = False) -> None:
        marks = ", ".join("?" * len(COLUMNS))
        values = [tuple(row[column] for column in COLUMNS) for row in rows]

        def write(base: sqlite3.Connection) -> None:
            with base:
                base.execute(TABLE)
                if anew:
                    base.execute("DELETE FROM runs WHERE written < ?", (time.time() - BUSY,))
                base.executemany(f"INSERT OR REPLACE INTO runs ({', '.join(COLUMNS)}) VALUES ({marks})", values)

        self._attempt(write, None)

    def _attempt(self, act: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Work on the index; a broken one is set aside, one that cannot be used is done without from then on."""
        for attempt in range(TRIES):
            if self._given_up:
                break
            try:
                return act(self._opened())
            except sqlite3.OperationalError as error:  # busy where SQLite does not wait; or no such disk
                self._close()
                if attempt == TRIES - 1:
                    self._give_up(error)
                else:
                    time.sleep(0.1 * (attempt + 1))
            except sqlite3.DatabaseError as error:
                self._close()
                if self._set_aside(error):
                    self.rebuild()
                else:
                    self._give_up(error)
        return otherwise

    def _give_up(self, error: Exception) -> None:
        self._given_up = True
        self.told.append(f"{self.path} cannot be used ({error}); the runs' folders have everything")

    def _opened(self) -> sqlite3.Connection:
        if self._base is None:
            self._base = sqlite3.connect(self.path, timeout=BUSY)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute("PRAGMA synchronous=NORMAL")
        return self._base

    def _close(self) -> None:
        if self._base is not None:
            self._base.close()
            self._base = None

    def _set_aside(self, error: Exception) -> bool:
        """Whether it could be renamed."""
        aside = self.path.with_name(f"{INDEX}.broken")
        try:
            self.path.replace(aside)
            for end in ("-wal", "-shm"):
                self.path.with_name(INDEX + end).unlink(missing_ok=True)
        except FileNotFoundError:  # another process was first
            return True
        except OSError:
            return False
        self.told.append(f"{self.path} is damaged ({error}); it was renamed to {aside.name} and made again")
        return True


def _has_table(base: sqlite3.Connection) -> bool:
    return bool(base.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchone())


def _all(base: sqlite3.Connection) -> list[Row]:
    found = base.execute(f"SELECT {', '.join(COLUMNS)} FROM runs ORDER BY id") if _has_table(base) else []
    return [dict(zip(COLUMNS, row, strict=True)) for row in found]


def _row_of(outcome: Outcome) -> Row:
    folder = outcome.folder or Path()
    return _failed(folder, outcome.error or "") if outcome.result is None else _finished(folder, outcome.result)


def _found(runs: Path) -> Iterable[Row]:
    """A row for each folder that holds a result, or what is left of a failure."""
    for folder in sorted(runs.iterdir()) if runs.is_dir() else ():
        try:
            yield _finished(folder, RunResult.from_dict(read_result(folder)))
        except (CheckpointError, OSError):  # noqa: PERF203 - a file each
            if (folder / LOG).is_file() and not (folder / RESULT).exists():
                with (folder / LOG).open(encoding="utf-8", errors="replace") as log:
                    yield _failed(folder, log.readline().strip())


def _finished(folder: Path, result: RunResult) -> Row:
    metrics = result.metrics
    figures = {metric: metrics[metric] for metric in METRICS}
    return _row(folder, "finished", result.spec.canonical()) | figures | {"seconds": round(result.seconds, 3)}


def _failed(folder: Path, error: str) -> Row:
    config: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        known = json.loads((folder / LOG).read_text(encoding="utf-8").splitlines()[1])
        config = known if isinstance(known, dict) else {}
    return _row(folder, "failed", config) | {"error": error}


def _row(folder: Path, status: str, config: dict[str, Any]) -> Row:
    known = {name: config.get(name) for name in ("benchmark", "method", "seed")}
    about = {"id": folder.name, "status": status, "config": json.dumps(config), "written": time.time()}
    return dict.fromkeys(COLUMNS) | known | about
