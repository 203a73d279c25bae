"""Several methods over several seeds, side by side on all cores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, stdev

from joblib import Parallel, delayed

from rwalk.experiments.runner import RunResult, run
from rwalk.experiments.spec import RunSpec

__all__ = ["mean_and_deviation", "run_all"]


def run_all(specs: Mapping[str, RunSpec], seeds: Sequence[int], *, jobs: int = -1) -> Iterator[tuple[str, RunResult]]:
    """Run every spec with every seed.

    Args:
        specs: Specs by label; their own seed is replaced.
        seeds: Seeds; the same for every spec, so that differences are paired.
        jobs: Processes; -1 for one per core.

    Yields:
        Label and result, as runs finish.
    """
    work = [(label, spec.model_copy(update={"seed": seed})) for seed in seeds for label, spec in specs.items()]
    yield from Parallel(n_jobs=jobs, return_as="generator_unordered")(
        delayed(_run_one)(label, spec) for label, spec in work
    )


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return mean(values), stdev(values) if len(values) > 1 else 0.0


def _run_one(label: str, spec: RunSpec) -> tuple[str, RunResult]:
    return label, run(spec)
