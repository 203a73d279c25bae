"""Many runs on all cores or a cluster: what is finished is used again, what fails is reported, and the rest goes on."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from multiprocessing import current_process
from pathlib import Path
from typing import Any, cast

from joblib import Parallel, delayed, effective_n_jobs

from rwalk.errors import CheckpointError
from rwalk.experiments.backends import LOCAL, Workers, lost_worker
from rwalk.experiments.carrying import CHECKPOINTS, begun, carry_out, finished
from rwalk.experiments.holding import FolderHeldError, held
from rwalk.experiments.references import last_reference, reference_spec
from rwalk.experiments.results import RESULT, Reference, RunResult, read_result, write_result
from rwalk.experiments.runner import run
from rwalk.experiments.spec import RunSpec
from rwalk.experiments.watching import end_with_parent, when_parent_ends
from rwalk.experiments.writing import writing_whole
from rwalk.training import CheckpointPlugin
from rwalk.training.plugins.checkpoints import Stopped

__all__ = ["LOG", "Outcome", "Work", "carried_out", "run_all", "run_name"]

LOG = "error.log"  # of a run that failed: what it was, and the traceback
AGAIN = 2.0  # seconds between two looks at runs that another command carries out
LONGEST = 400  # characters of an error
KILLED = "its process was killed (out of memory?)"

_one_at_a_time = threading.Lock()  # torch's generator and threads are the process's; some backends work in threads


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Attributes:
        label: Which of the specs.
        seed: Its seed.
        result: What came out; None if it failed.
        error: Why it failed, in one line; None if it did not.
        reused: Whether it had been finished before.
        notes: What else there is to tell, such as a stored result that was broken.
        folder: Its folder, if it has one; ``error.log`` in it has the traceback of an error.
        held: Whether another command carries it out now, so that there is nothing to tell yet.
        more: What else came of it, where it was more than a run.
    """

    label: str
    seed: int
    result: RunResult | None = None
    error: str | None = None
    reused: bool = False
    notes: tuple[str, ...] = ()
    folder: Path | None = None
    held: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """One run, or (``only_reference``) the reference that several of them share.

    ``parent`` is the process that wants it done: a worker that is still importing when it ends has to know. None where
    workers have a life of their own.
    """

    label: str
    spec: RunSpec
    folder: Path | None
    intransigence: bool = False
    only_reference: bool = False
    every: int = 0
    parent: int | None = field(default_factory=os.getpid)
    surroundings: Mapping[str, str] = field(default_factory=dict)

    def found(self) -> Outcome | None:
        """What is stored of it, whole; anything else there is replaced."""
        if self.only_reference or self.folder is None or not (self.folder / RESULT).is_file():
            return None
        try:
            result = RunResult.from_dict(read_result(self.folder))
        except (CheckpointError, OSError):
            return None
        return Outcome(self.label, self.spec.seed, result, reused=True, folder=self.folder)

    def carry_out(self, notes: list[str]) -> Outcome:
        """Do it, or find it finished."""
        label, seed = self.label, self.spec.seed
        if self.only_reference:
            last_reference(self.spec)
            return Outcome(label, seed)
        if self.folder is None:
            return Outcome(label, seed, run(self.spec, reference=self._reference()))
        before = finished(self.folder, notes.append)
        result = before or self._carried_out(self.folder)
        return Outcome(label, seed, result, reused=before is not None, folder=self.folder)

    def _carried_out(self, folder: Path) -> RunResult:
        checkpoint = None
        if self.every or begun(folder):
            checkpoint = CheckpointPlugin(folder / CHECKPOINTS, every=self.every)
            when_parent_ends(checkpoint.stop)
        try:
            return carry_out(self.spec, folder, reference=self._reference, checkpoint=checkpoint)
        finally:
            when_parent_ends(None)

    def _reference(self) -> Reference | None:
        return last_reference(self.spec) if self.intransigence else None


def run_all(
    specs: Mapping[str, RunSpec],
    seeds: Sequence[int],
    *,
    jobs: int = -1,
    folder: Path | None = None,
    intransigence: bool = False,
    every: int = 0,
    workers: Workers = LOCAL,
) -> Iterator[Outcome]:
    """Run every spec with every seed. Specs that do the same run once, for all their labels.

    Args:
        specs: Specs by label; their own seed is replaced.
        seeds: Seeds; the same for every spec, so that differences are paired.
        jobs: Processes; -1 for one per core, or for all that a cluster has.
        folder: Where results are kept, one folder a run, named by what the run is. One found finished there is not run
            again; one that another command carries out there is waited for. None keeps nothing.
        intransigence: Also train the joint reference of each stream's last experience, once.
        every: Batches from one checkpoint of a run to the next; 0 for none. A run that was interrupted goes on from its
            last one in any case.
        workers: Who works: this machine's processes, or a cluster's (``cluster``).

    Yields:
        An outcome for every run, as they finish.
    """
    work: dict[str, Work] = {}
    labels: dict[str, list[str]] = {}
    common: dict[str, Any] = {"every": every, "parent": workers.parent(), "surroundings": workers.surroundings()}
    for seed in seeds:
        for label, spec in specs.items():
            seeded = spec.model_copy(update={"seed": seed})
            name = run_name(seeded, intransigence)
            place = None if folder is None else folder.absolute() / name
            work.setdefault(name, Work(label, seeded, place, intransigence, **common))
            labels.setdefault(name, []).append(label)
    left = dict(work)
    for name, item in work.items():
        stored = item.found()
        if stored is not None:
            del left[name]
            yield from (replace(stored, label=label) for label in labels[name])
    if intransigence:  # first, and each once: a run that waits for one would keep a core idle
        ahead = {
            json.dumps(reference_spec(item.spec).canonical()): Work(
                item.label, item.spec, None, True, True, **common | {"every": 0}
            )
            for item in left.values()
        }
        for _ in carried_out(ahead, jobs):  # a reference that fails is reported by the runs that need it
            pass
    for name, outcome in carried_out(left, jobs):
        yield from (replace(outcome, label=label) for label in labels[name])


def run_name(spec: RunSpec, intransigence: bool = False) -> str:
    """The name of a run's folder: its method, its seed, and a hash of all that defines it."""
    settings = json.dumps([spec.canonical(), intransigence], sort_keys=True)
    name = re.sub(r"[^\w+.-]+", "-", spec.method)
    return f"{name}-seed-{spec.seed}-{blake2b(settings.encode(), digest_size=8).hexdigest()}"


def carried_out(work: Mapping[str, Work], jobs: int) -> Iterator[tuple[str, Outcome]]:
    """Do all of it, each piece once. What another command holds comes last, and is waited for."""
    left = dict(work)
    while left:
        busy: dict[str, Work] = {}
        for name, outcome in _whoever_dies(left, jobs):
            if outcome.held:
                busy[name] = work[name]
            else:
                yield name, _kept(work[name], outcome)
        left = busy
        if left:
            time.sleep(AGAIN)


def _whoever_dies(work: Mapping[str, Work], jobs: int) -> Iterator[tuple[str, Outcome]]:
    """Do all of it, although a process that dies takes its pool along.

    Work is handed out in order, so that what the dead process did is among the first that are left. Those are done one
    by one, each in a process that it may take along, and then the rest goes on in parallel.
    """
    left = dict(work)
    while left:
        yield from _until_one_dies(left, jobs)
        for name in list(left)[: effective_n_jobs(jobs)]:
            yield name, _alone(left.pop(name))


def _until_one_dies(left: dict[str, Work], jobs: int) -> Iterator[tuple[str, Outcome]]:
    """Work in parallel; what is done is taken out of ``left``."""
    tasks = (delayed(_named)(name, item) for name, item in list(left.items()))
    try:
        for name, outcome in Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks):
            del left[name]
            yield name, outcome
    except Exception as error:
        if not lost_worker(error):
            raise


def _alone(item: Work) -> Outcome:
    """Do a piece of work in a process of its own."""
    try:
        return cast("Outcome", Parallel(n_jobs=2)([delayed(_done)(item)])[0])
    except Exception as error:
        if not lost_worker(error):
            raise
        if item.folder is not None:
            _write_log(item, KILLED, "")
        return Outcome(item.label, item.spec.seed, error=KILLED, folder=item.folder)


def _named(name: str, item: Work) -> tuple[str, Outcome]:
    return name, _done(item)


def _done(item: Work) -> Outcome:
    """Carry out a run, or find it finished; an error becomes part of the outcome."""
    notes = list[str]()
    if item.parent is None:
        _as_there(item.surroundings)
    elif current_process().name != "MainProcess":
        end_with_parent(item.parent)
    try:
        with _one_at_a_time:
            if item.folder is None:
                return item.carry_out(notes)
            with held(item.folder):
                outcome = item.carry_out(notes)
                (item.folder / LOG).unlink(missing_ok=True)
    except FolderHeldError:
        return Outcome(item.label, item.spec.seed, held=True, folder=item.folder)
    except Stopped:  # with its parent
        os._exit(1)
    except Exception as error:  # whatever it is, it ends one run and not the others
        line = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"[:LONGEST]
        if item.folder is not None:
            _write_log(item, line, traceback.format_exc())
        return Outcome(item.label, item.spec.seed, error=line, notes=tuple(notes), folder=item.folder)
    return replace(outcome, notes=tuple(notes))


def _write_log(item: Work, line: str, more: str) -> None:
    """What failed, what it was, and where; where nothing can be written, the line alone is told."""
    folder = cast("Path", item.folder)
    with suppress(OSError), writing_whole(folder / LOG) as file:
        file.write(f"{line}\n{json.dumps(item.spec.canonical())}\n{more}".encode())


def _kept(item: Work, outcome: Outcome) -> Outcome:
    """Write a result down that came from a machine with another disk."""
    if item.parent is None and item.folder is not None and outcome.result is not None:
        if not (item.folder / RESULT).is_file():
            write_result(outcome.result.to_dict(), item.folder)
        (item.folder / LOG).unlink(missing_ok=True)
    return outcome


def _as_there(surroundings: Mapping[str, str]) -> None:
    """In a worker of a cluster: look for data and relative paths where the command does."""
    for name, value in surroundings.items():
        if name == "PWD":
            if Path(value).is_dir():
                os.chdir(value)
        else:
            os.environ.setdefault(name, value)
