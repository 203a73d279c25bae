"""What is said of several seeds: means, deviations, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

__all__ = ["Difference", "mean_and_deviation", "paired_difference"]

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
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1)) * stdev(differences) / math.sqrt(len(differences))
    return Difference(middle, middle - half, middle + half, wins, len(differences))
