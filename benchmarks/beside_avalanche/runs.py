"""Runs in several processes: what is finished is found again, what fails is told, and the rest goes on."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from joblib import Parallel, delayed

from benchmarks.beside_avalanche.protocols import Contender
from benchmarks.command import progress
from benchmarks.machine import describe_versions
from rwalk.experiments import Outcome, RunResult, RunSpec, read_result, write_result
from rwalk.experiments.data import stream_of
from rwalk.experiments.results import RESULT, Reference

__all__ = ["carry_out"]


def carry_out(
    sides: Sequence[Contender],
    seeds: Sequence[int],
    *,
    jobs: int,
    folder: Path | None = None,
    reference: Reference | None = None,
) -> list[Outcome]:
    """Every contender with every seed.

    Args:
        sides: Contenders of different labels; their specs' own seed is replaced.
        seeds: Seeds.
        jobs: Processes.
        folder: Where finished runs are kept and found again, by settings and versions; None keeps nothing.
        reference: Of intransigence.
    """
    work = [(side, seed) for seed in seeds for side in sides]
    done = Parallel(n_jobs=jobs, return_as="generator_unordered")(
        delayed(_carry_out)(side, seed, folder, reference) for side, seed in work
    )
    outcomes = []
    for outcome in done:
        outcomes.append(outcome)
        progress(f"{len(outcomes)}/{len(work)}: {outcome.label}, seed {outcome.seed}: {_told(outcome)}")
    return outcomes


def _carry_out(side: Contender, seed: int, folder: Path | None, reference: Reference | None) -> Outcome:
    """One run; an error becomes part of the outcome, and the others go on."""
    spec = side.spec.model_copy(update={"seed": seed})
    place = None if folder is None else folder / _place(side.label, spec)
    try:
        if place is not None and (place / RESULT).is_file():
            found = replace(RunResult.from_dict(read_result(place)), reference=reference)
            return Outcome(side.label, seed, found, reused=True)
        stream_of(spec)  # read once a process, and no part of any run's time
        began = time.perf_counter()
        matrix = side.learn(spec)
        result = RunResult(spec, matrix, time.perf_counter() - began, reference)
        if place is not None:
            write_result(result.to_dict(), place)
    except Exception as error:
        message = (str(error).strip() or "no message").splitlines()[0]
        return Outcome(side.label, seed, error=f"{type(error).__name__}: {message}")
    return Outcome(side.label, seed, result)


def _place(label: str, spec: RunSpec) -> Path:
    settings = json.dumps([label, spec.canonical(), describe_versions()], sort_keys=True)
    name = re.sub(r"[^\w.-]+", "-", label)
    return Path(name) / f"seed-{spec.seed}-{blake2b(settings.encode(), digest_size=5).hexdigest()}"


def _told(outcome: Outcome) -> str:
    if outcome.result is None:
        return str(outcome.error)
    accuracy = outcome.result.metrics["average_accuracy"] or 0.0
    return f"{100 * accuracy:.1f} % in {outcome.result.seconds:.0f} s{' (finished before)' if outcome.reused else ''}"
