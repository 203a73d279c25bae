"""Outcomes of many runs as a table: means, deviations, differences seed by seed, and what failed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import mean, stdev
from typing import Any

from rwalk.experiments.pool import Outcome
from rwalk.experiments.results import RunResult

__all__ = [
    "METRICS",
    "Difference",
    "Row",
    "half_interval",
    "mean_and_deviation",
    "paired_difference",
    "spread_text",
    "summarise",
]

METRICS = ("average_accuracy", "forgetting", "intransigence", "learning_accuracy")
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """How two methods differ over the same seeds.

    Attributes:
        mean: Mean of the differences.
        low: Lower end of the 95 % confidence interval of that mean; None for a single pair.
        high: Its upper end.
        wins: Pairs in which the first value is the greater.
        pairs: How many there are.
    """

    mean: float
    low: float | None
    high: float | None
    wins: int
    pairs: int


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return mean(values), stdev(values) if len(values) > 1 else 0.0


def spread_text(spread: tuple[float, float | None] | None) -> str:
    """Per cent; a deviation only where there is one."""
    if spread is None:
        return "–"
    mean, deviation = spread
    return f"{100 * mean:.1f}" if deviation is None else f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def half_interval(values: Sequence[float]) -> float:
    """Half of Student's 95 % confidence interval of a mean, of at least two values.

    Example:
        >>> f"{half_interval([2.0, 3.0, 5.0]):.2f}"
        '3.79'
    """
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """First minus second, seed by seed, with Student's confidence interval of the mean.

    Args:
        first: One value a seed.
        second: The same seeds in the same order.

    Raises:
        ValueError: Lengths differ, or there are no pairs.

    Example:
        >>> found = paired_difference([3.0, 4.0, 6.0], [1.0, 1.0, 1.0])
        >>> f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}] {found.wins}/{found.pairs}"
        '3.33 [-0.46, 7.13] 3/3'
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} values: expected pairs")
    differences = [a - b for a, b in zip(first, second, strict=True)]
    middle, wins = mean(differences), sum(difference > 0 for difference in differences)
    if len(differences) == 1:
        return Difference(middle, None, None, wins, 1)
    half = half_interval(differences)
    return Difference(middle, middle - half, middle + half, wins, len(differences))


@dataclass(frozen=True)
class Row:
    """What became of one label.

    Attributes:
        label: The label.
        results: Its results by seed, those that failed left out.
        errors: Seed and reason of each run that failed.
        differences: By metric, this label less the one compared against, over the seeds that both finished; empty for
            that label itself.
        metrics: Which are told.
    """

    label: str
    results: dict[int, RunResult]
    errors: dict[int, str] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)
    metrics: tuple[str, ...] = METRICS

    def values(self, metric: str) -> dict[int, float]:
        """A metric by seed, where it is defined."""
        found = {seed: result.metrics[metric] for seed, result in self.results.items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def spread(self, metric: str) -> tuple[float, float] | None:
        """Mean and sample standard deviation of a metric; None where it is not defined."""
        values = list(self.values(metric).values())
        return mean_and_deviation(values) if values else None

    @property
    def seconds(self) -> float:
        """Of all its runs together."""
        return sum(result.seconds for result in self.results.values())

    def to_dict(self) -> dict[str, Any]:
        """As plain values: spec, figures of each seed, and what was computed of them."""
        spreads = {metric: self.spread(metric) for metric in self.metrics}
        return {
            "label": self.label,
            "config": next((result.spec.canonical() for result in self.results.values()), None),
            "seeds": {
                str(seed): {metric: result.metrics[metric] for metric in self.metrics}
                | {"seconds": round(result.seconds, 1)}
                for seed, result in self.results.items()
            },
            "errors": {str(seed): error for seed, error in self.errors.items()},
            "mean": {metric: None if spread is None else spread[0] for metric, spread in spreads.items()},
            "deviation": {metric: None if spread is None else spread[1] for metric, spread in spreads.items()},
            "differences": {metric: asdict(difference) for metric, difference in self.differences.items()},
        }


def summarise(
    outcomes: Iterable[Outcome], labels: Sequence[str], against: str | None = None, *, also: Sequence[str] = ()
) -> list[Row]:
    """A row for each label.

    Args:
        outcomes: In any order.
        labels: The order of the rows.
        against: What the others are compared with, seed by seed; the last label if None.
        also: Metrics to tell of beside ``METRICS``.
    """
    found, metrics = list(outcomes), tuple(dict.fromkeys([*METRICS, *also]))
    rows = []
    for label in labels:
        own = sorted((outcome for outcome in found if outcome.label == label), key=lambda outcome: outcome.seed)
        results = {outcome.seed: outcome.result for outcome in own if outcome.result is not None}
        errors = {outcome.seed: outcome.error for outcome in own if outcome.error is not None}
        rows.append(Row(label, results, errors, metrics=metrics))
    base = next(row for row in rows if row.label == (against or labels[-1]))
    return [row if row is base else replace(row, differences=_compare(row, base)) for row in rows]


def _compare(row: Row, base: Row) -> dict[str, Difference]:
    differences = {}
    for metric in row.metrics:
        ours, theirs = row.values(metric), base.values(metric)
        both = [seed for seed in ours if seed in theirs]
        if both:
            differences[metric] = paired_difference([ours[seed] for seed in both], [theirs[seed] for seed in both])
    return differences
