"""Honest timing: variants take turns, figures are medians, and ratios are formed within one turn.

A machine's speed drifts with its temperature and its neighbours. Variants that run one after the other, round after
round, drift together, so that a ratio of two figures of the same round does not see it.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Rounds", "Run", "Summary", "Visit", "interleave", "summarize", "visit"]

Run = Callable[[int], object]
Visit = Callable[[], float]


@dataclass(frozen=True)
class Summary:
    """Median and quartiles of a number of measurements."""

    median: float
    q1: float
    q3: float
    count: int


def summarize(values: Iterable[float]) -> Summary:
    """Median and quartiles.

    Raises:
        ValueError: There are no values.

    Example:
        >>> summarize([3.0, 1.0, 2.0, 100.0, 0.0])
        Summary(median=2.0, q1=1.0, q3=3.0, count=5)
    """
    found = sorted(values)
    if not found:
        raise ValueError("no measurements: at least one round is needed")
    if len(found) == 1:
        return Summary(found[0], found[0], found[0], 1)
    low, middle, high = statistics.quantiles(found, n=4, method="inclusive")
    return Summary(middle, low, high, len(found))


class Rounds(list[dict[str, float]]):
    """Seconds per step of every variant, one entry a round."""

    def summary(self, formula: Callable[[Mapping[str, float]], float]) -> Summary:
        """A formula worked out within each round, then summarized.

        Example:
            >>> rounds = Rounds([{"a": 1.0, "b": 2.0}, {"a": 10.0, "b": 20.0}])
            >>> rounds.summary(lambda seconds: seconds["b"] / seconds["a"]).median
            2.0
        """
        return summarize(formula(seconds) for seconds in self)


def visit(run: Run, steps: int, lead_in: int = 1) -> Visit:
    """A turn of one variant: a few steps that bring its data back into the cache, then the timed ones.

    Args:
        run: Does as many steps as it is told.
        steps: Timed steps.
        lead_in: Steps before them that are not timed.

    Returns:
        A function that does so and returns seconds per timed step.
    """

    def turn() -> float:
        run(lead_in)
        began = time.perf_counter()
        run(steps)
        return (time.perf_counter() - began) / steps

    return turn


def interleave(
    variants: Mapping[str, Visit],
    *,
    budget: float,
    at_least: int = 3,
    at_most: int = 400,
    warm_up: bool = True,
    turns: int = 1,
) -> Rounds:
    """Let variants take turns, in a new random order each round, until the time is used up.

    Garbage is collected between turns and never within one.

    Args:
        variants: A turn of each, returning seconds per step.
        budget: Seconds for all rounds together.
        at_least: Rounds to measure even if the time is used up.
        at_most: Rounds after which to stop even if there is time.
        warm_up: Let a round go by before those that count.
        turns: Of each variant in a round, whose mean is the round's figure.
    """
    names: Sequence[str] = list(variants)
    orders = random.Random(0)
    rounds = Rounds()
    began = time.perf_counter()
    collects = gc.isenabled()
    gc.collect()
    gc.freeze()  # what there is by now need not be gone through between turns
    try:
        for index in range(at_most + warm_up):
            seconds = dict.fromkeys(names, 0.0)
            for _ in range(turns):
                for name in orders.sample(names, len(names)):
                    gc.collect()
                    gc.disable()
                    seconds[name] += variants[name]() / turns
                    gc.enable()
            if index >= warm_up:
                rounds.append(seconds)
            spent = time.perf_counter() - began
            if len(rounds) >= at_least and spent * (index + 2) / (index + 1) > budget:
                break
    finally:
        gc.unfreeze()
        (gc.enable if collects else gc.disable)()
    return rounds
