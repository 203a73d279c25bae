"""Many runs on all cores: what is finished is used again, what fails is reported, and the rest goes on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from hashlib import blake2b
from multiprocessing import current_process
from pathlib import Path
from typing import cast

from joblib import Parallel, delayed, effective_n_jobs

from rwalk.errors import CheckpointError
from rwalk.experiments.carrying import CHECKPOINTS, begun, carry_out, finished
from rwalk.experiments.holding import held
from rwalk.experiments.references import last_reference, reference_spec
from rwalk.experiments.results import RESULT, Reference, RunResult, read_result
from rwalk.experiments.runner import run
from rwalk.experiments.spec import RunSpec
from rwalk.experiments.watching import end_with_parent, when_parent_ends
from rwalk.training import CheckpointPlugin
from rwalk.training.plugins.checkpoints import Stopped

__all__ = ["Outcome", "run_all"]

HELD = 10.0  # seconds to wait for the folder of a run: a worker of a command that was killed may be leaving it
LONGEST = 400  # characters of an error


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
    """

    label: str
    seed: int
    result: RunResult | None = None
    error: str | None = None
    reused: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Work:
    """One run, or (``only_reference``) the reference that several of them share.

    ``parent`` is the process that wants it done: a worker that is still importing when it ends has to know.
    """

    label: str
    spec: RunSpec
    folder: Path | None
    intransigence: bool
    only_reference: bool = False
    every: int = 0
    parent: int = field(default_factory=os.getpid)

    @property
    def finished(self) -> bool:
        """Whether a result of it is stored whole; anything else there is replaced."""
        if self.folder is None or not (self.folder / RESULT).is_file():
            return False
        try:
            RunResult.from_dict(read_result(self.folder))
        except CheckpointError:
            return False
        return True


def run_all(
    specs: Mapping[str, RunSpec],
    seeds: Sequence[int],
    *,
    jobs: int = -1,
    folder: Path | None = None,
    intransigence: bool = False,
    every: int = 0,
) -> Iterator[Outcome]:
    """Run every spec with every seed.

    Args:
        specs: Specs by label; their own seed is replaced.
        seeds: Seeds; the same for every spec, so that differences are paired.
        jobs: Processes; -1 for one per core. The same call runs on Ray or Dask under ``joblib.parallel_config``.
        folder: Where results are kept, one folder a run. A run of the same settings found there is not run again. None
            keeps nothing.
        intransigence: Also train the joint reference of each stream's last experience, once.
        every: Batches from one checkpoint of a run to the next; 0 for none. A run that was interrupted goes on from its
            last one in any case.

    Yields:
        An outcome for every run, as they finish.
    """
    work = []
    for seed in seeds:
        for label, spec in specs.items():
            seeded = spec.model_copy(update={"seed": seed})
            place = None if folder is None else folder / _place(label, seeded, intransigence)
            work.append(_Work(label, seeded, place, intransigence, every=every))
    if intransigence:  # first, and each once: a run that waits for one would keep a core idle
        ahead = {
            json.dumps(reference_spec(item.spec).canonical()): _Work(item.label, item.spec, None, True, True)
            for item in work
            if not item.finished
        }
        for _ in _each(list(ahead.values()), jobs):  # a reference that fails is reported by the runs that need it
            pass
    yield from _each(work, jobs)


def _each(work: Sequence[_Work], jobs: int) -> Iterator[Outcome]:
    """Do all of it. A process that dies takes its pool along.

    Work is handed out in order, so that what the dead process did is among the first that are left. Those are done one
    by one, each in a process that it may take along, and then the rest goes on in parallel.
    """
    left = dict(enumerate(work))
    while left:
        yield from _until_one_dies(left, jobs)
        for index in list(left)[: effective_n_jobs(jobs)]:
            yield _alone(left.pop(index))


def _until_one_dies(left: dict[int, _Work], jobs: int) -> Iterator[Outcome]:
    """Work in parallel; what is done is taken out of ``left``."""
    tasks = (delayed(_numbered)(index, item) for index, item in list(left.items()))
    try:
        for index, outcome in Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks):
            del left[index]
            yield outcome
    except BrokenProcessPool:
        return


def _alone(item: _Work) -> Outcome:
    """Do a piece of work in a process of its own."""
    try:
        return cast("Outcome", Parallel(n_jobs=2)([delayed(_done)(item)])[0])
    except BrokenProcessPool:
        return Outcome(item.label, item.spec.seed, error="its process was killed (out of memory?)")


def _numbered(index: int, item: _Work) -> tuple[int, Outcome]:
    return index, _done(item)


def _done(item: _Work) -> Outcome:
    """Carry out a run, or find it finished; an error becomes part of the outcome."""
    label, seed, notes = item.label, item.spec.seed, list[str]()
    if current_process().name != "MainProcess":
        end_with_parent(item.parent)
    try:
        if item.only_reference:
            last_reference(item.spec)
            return Outcome(label, seed)
        if item.folder is None:
            return Outcome(label, seed, run(item.spec, reference=_reference(item)))
        with held(item.folder, wait=HELD):
            found = finished(item.folder, notes.append)
            reused = found is not None
            result = found or _carried_out(item, item.folder)
    except Stopped:  # with its parent
        os._exit(1)
    except Exception as error:  # whatever it is, it ends one run and not the others
        message = (str(error).strip() or "no message").splitlines()[0]
        return Outcome(label, seed, error=f"{type(error).__name__}: {message}"[:LONGEST], notes=tuple(notes))
    return Outcome(label, seed, result, reused=reused, notes=tuple(notes))


def _carried_out(item: _Work, folder: Path) -> RunResult:
    checkpoint = None
    if item.every or begun(folder):
        checkpoint = CheckpointPlugin(folder / CHECKPOINTS, every=item.every)
        when_parent_ends(checkpoint.stop)
    try:
        return carry_out(item.spec, folder, reference=lambda: _reference(item), checkpoint=checkpoint)
    finally:
        when_parent_ends(None)


def _reference(item: _Work) -> Reference | None:
    return last_reference(item.spec) if item.intransigence else None


def _place(label: str, spec: RunSpec, intransigence: bool) -> Path:
    """A folder that is this run's own: readable, and different for different settings."""
    settings = json.dumps([spec.canonical(), intransigence, label], sort_keys=True)
    name = re.sub(r"[^\w+.-]+", "-", label).strip("-.")[:80] or "run"
    return Path(name) / f"seed-{spec.seed}-{blake2b(settings.encode(), digest_size=5).hexdigest()}"
