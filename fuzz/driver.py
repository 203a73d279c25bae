"""Runs a target's cases in a process of their own, so that crashes and hangs are findings and not the end."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fuzz import prepared

__all__ = ["LIMIT", "Report", "hunt", "hunt_apart"]

#: Seconds that a case may take.
LIMIT = 2.0
#: Findings after which a hunt ends: more of them tell nothing new.
ENOUGH = 50


@dataclass
class Report:
    """What came of a number of cases.

    Attributes:
        endings: How cases ended, counted.
        findings: The number of each case that must not have ended as it did, and how.
        slowest: Seconds of the slowest case.
    """

    endings: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[int, str]] = field(default_factory=list)
    slowest: float = 0.0

    def add(self, index: int, ending: str, seconds: float, *, bad: bool) -> None:
        """One more case has ended."""
        self.slowest = max(self.slowest, seconds)
        if bad or seconds > LIMIT:
            self.findings.append((index, ending if bad else f"took {seconds:.1f} s ({ending})"))
        else:
            self.endings[ending] += 1


def hunt(name: str, cases: range, seed: int, folder: Path) -> Report:
    """Run cases in this process."""
    report = Report()
    with _silence():
        case = prepared(name, folder)
        for index in cases:
            ending, seconds, bad = _one(case, seed, index)
            report.add(index, ending, seconds, bad=bad)
    return report


def hunt_apart(name: str, cases: range, seed: int) -> Report:
    """Run cases in a process that is watched, and in another one from the next case on where it crashes or hangs."""
    report, start, context = Report(), cases.start, multiprocessing.get_context("spawn")
    while start < cases.stop and len(report.findings) < ENOUGH:
        with tempfile.TemporaryDirectory() as folder:
            at, told = context.Value("q", start - 1), context.Queue()
            worker = context.Process(target=_work, args=(name, start, cases.stop, seed, folder, at, told), daemon=True)
            worker.start()
            start = _watch(worker, at, told, report, cases.stop)
    return report


def _watch(worker: Any, at: Any, told: Any, report: Report, stop: int) -> int:
    """Until the process has done all its cases, or ends otherwise; returns the case to go on with."""
    first, done = at.value + 1, at.value
    since, present = time.monotonic(), at.value
    while done < stop - 1:
        try:
            done, ending, seconds, bad = told.get(timeout=0.2)
            report.add(done, ending, seconds, bad=bad)
            since = time.monotonic()
            continue
        except queue.Empty:
            pass
        if at.value != present:
            since, present = time.monotonic(), at.value
        begun = present >= first
        if not worker.is_alive() and told.empty():
            report.findings.append((done + 1, f"the process ended with {worker.exitcode}"))
            return done + 2
        if begun and done < present and time.monotonic() - since > 10 * LIMIT:
            worker.kill()
            worker.join()
            report.findings.append((present, f"was not done after {10 * LIMIT:.0f} s"))
            return present + 1
    worker.join()
    return stop


def _work(name: str, start: int, stop: int, seed: int, folder: str, at: Any, told: Any) -> None:
    with _silence():
        case = prepared(name, Path(folder))
        for index in range(start, stop):
            at.value = index
            told.put((index, *_one(case, seed, index)))


@contextmanager
def _silence() -> Iterator[None]:
    """Inside, rwalk logs nothing: of damaged files there is a line for each."""
    logger = logging.getLogger("rwalk")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _one(case: Any, seed: int, index: int) -> tuple[str, float, bool]:
    began, bad = time.perf_counter(), False
    try:
        ending = case(Random(f"{seed}/{index}"))
    except Exception as error:  # that it can be any is the point
        ending, bad = f"{type(error).__name__}: {error}"[:300], True
    return ending, time.perf_counter() - began, bad
