"""Strengths to try, and what follows where the best is at their end: one rule for all comparisons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["BEYOND", "tried"]

#: How often a further strength is tried.
BEYOND = 2

Found = TypeVar("Found")


def tried(
    values: Sequence[float], judge: Callable[[Sequence[float]], Sequence[Found]], score: Callable[[Found], float]
) -> tuple[dict[float, Found], float]:
    """Judge strengths, and up to ``BEYOND`` more, a factor of ten further, while the best is the least or the largest.

    Args:
        values: Those to begin with, at least one.
        judge: Strengths to what came of each.
        score: Of what came of one; more is better, the first of equals is taken.

    Returns:
        What came of each, by strength in ascending order, and the best strength.
    """
    found = dict(zip(values, judge(values), strict=True))

    def best() -> float:
        return max(found, key=lambda value: score(found[value]))

    for _ in range(BEYOND):
        if (chosen := best()) not in (min(found), max(found)):
            break
        further = float(f"{chosen * (10 if chosen == max(found) else 0.1):g}")
        found[further] = judge([further])[0]
    chosen = best()
    return {value: found[value] for value in sorted(found)}, chosen
