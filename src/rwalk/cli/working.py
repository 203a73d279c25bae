"""Many runs in a folder, as the commands carry them out: progress, index, notes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from rwalk.cli.display import plain, tell
from rwalk.experiments import Outcome, RunSpec, run_all
from rwalk.experiments.backends import LOCAL, Workers
from rwalk.experiments.holding import held
from rwalk.experiments.index import RunIndex
from rwalk.experiments.pool import LOG
from rwalk.experiments.results import check_folder

__all__ = ["Counter", "complain", "work_through"]

EVERY = 15.0  # seconds between two lines of progress where there is no terminal


class Counter:
    """How far the work is: a bar on a terminal; elsewhere a line now and then. Both on standard error.

    Args:
        total: How many runs.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done, self.reused, self.failed = total, 0, 0, 0
        self._began = self._told = time.monotonic()
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        left = TextColumn("{task.fields[left]}", markup=False)
        self._bar = (
            Progress(*columns, left, console=self._console, transient=True) if self._console.is_terminal else None
        )
        self._task = None if self._bar is None else self._bar.add_task("training", total=total, left="")

    def __enter__(self) -> Counter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def count(self, outcome: Outcome) -> None:
        """One more is done."""
        self.done += 1
        self.reused += outcome.reused
        self.failed += outcome.error is not None
        if self._bar is not None and self._task is not None:
            what = f"{outcome.label}, seed {outcome.seed}"
            what = what if len(what) <= 36 else f"{what[:35]}…"
            self._bar.update(self._task, completed=self.done, description=str(plain(what)), left=self.left())
        elif time.monotonic() - self._told >= EVERY:
            self._told = time.monotonic()
            self._console.print(
                f"{self.done} of {self.total} runs done, {self.left()}", highlight=False, soft_wrap=True
            )

    def note(self, text: str) -> None:
        """Something worth telling in between."""
        console = self._console if self._bar is None else self._bar.console
        console.print(plain(text), highlight=False, soft_wrap=True)

    def left(self) -> str:
        """How long it will take, as long as runs take that were not finished before; how many failed."""
        fresh, elapsed = self.done - self.reused, time.monotonic() - self._began
        seconds = None if not fresh else elapsed / fresh * (self.total - self.done)
        told = "" if seconds is None else f"{_time(seconds)} left"
        return ", ".join(part for part in (told, f"{self.failed} failed" if self.failed else "") if part)


def work_through(
    console: Console,
    specs: Mapping[str, RunSpec],
    seeds: Sequence[int],
    out: Path,
    *,
    jobs: int,
    every: int = 0,
    intransigence: bool = False,
    workers: Workers = LOCAL,
    shared: bool = False,
    quiet: bool = False,
) -> tuple[list[Outcome], float]:
    """What became of every run, and how many seconds it took.

    Args:
        console: Where to tell what was found finished.
        specs: As ``run_all``.
        seeds: As ``run_all``.
        out: Folder; runs and their index go there.
        jobs: As ``run_all``.
        every: As ``run_all``.
        intransigence: As ``run_all``.
        workers: As ``run_all``.
        shared: Whether other commands may work in the folder meanwhile.
        quiet: Say nothing on ``console``.
    """
    check_folder(out, overwrite=True)
    outcomes: list[Outcome] = []
    began = time.perf_counter()
    with ExitStack() as stack:
        if shared:
            out.mkdir(parents=True, exist_ok=True)
        else:
            stack.enter_context(held(out))
        index = stack.enter_context(RunIndex(out))
        counter = stack.enter_context(Counter(len(specs) * len(seeds)))
        runs = run_all(
            specs, seeds, jobs=jobs, folder=out / "runs", intransigence=intransigence, every=every, workers=workers
        )
        for outcome in runs:
            outcomes.append(outcome)
            index.record([outcome])
            for note in outcome.notes:
                counter.note(note)
            counter.count(outcome)
        for text in dict.fromkeys(index.told):
            counter.note(text)
    if counter.reused and not quiet:
        tell(console, f"{counter.reused} of {len(outcomes)} runs were finished before.")
    return outcomes, time.perf_counter() - began


def complain(console: Console, outcomes: Sequence[Outcome], *, quiet: bool = False, most: int = 20) -> None:
    """Name what failed and where its log is (``quiet``: on standard error), and end with a status that says so."""
    console = Console(stderr=True) if quiet else console
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed[:most]:
        tell(console, f"failed: {outcome.label}, seed {outcome.seed}: {outcome.error}")
        if outcome.folder is not None and (outcome.folder / LOG).is_file():  # the disk may have been full
            tell(console, f"  log: {outcome.folder / LOG}")
    if len(failed) > most:
        tell(console, f"… and {len(failed) - most} more")
    if failed:
        raise typer.Exit(1)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
