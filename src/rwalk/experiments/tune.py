"""Choosing settings on data held out of the training set; the test data is never looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

from rwalk.errors import closest
from rwalk.experiments.comparison import MOST_RUNS
from rwalk.experiments.loading import build_spec, merged, nested, repeated, short
from rwalk.experiments.pool import Outcome
from rwalk.experiments.spec import RunSpec
from rwalk.experiments.summary import Row

__all__ = ["BETTER", "VALIDATION", "best", "candidates", "check_metric", "cost"]

#: Share of the training data that is held out where a spec names none.
VALIDATION = 0.1

#: What settings can be chosen by, and which end of it is the better one.
BETTER: dict[str, Callable[..., str]] = {
    "average_accuracy": max,
    "learning_accuracy": max,
    "backward_transfer": max,
    "forgetting": min,
}


def candidates(base: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]) -> dict[str, RunSpec]:
    """A spec for each combination of a grid, all of them judged on held-out training data.

    Args:
        base: Settings that all share.
        grid: Values by key; ``rwalk.ewc_lambda`` reaches into ``rwalk``.

    Raises:
        ValueError: A key without values, with one of them twice or that is no setting of the method, settings that make
            no spec, or one that holds no data out.

    Example:
        >>> list(candidates({"benchmark": "split-digits", "method": "rwalk"}, {"rwalk.ewc_lambda": [1.0, 3.0]}))
        ['rwalk.ewc_lambda=1.0', 'rwalk.ewc_lambda=3.0']
    """
    for key, values in grid.items():
        if not values:
            raise ValueError(f"{key}: no values to choose from")
        if twice := repeated(values):
            raise ValueError(
                f"{key}={short(list(values))}: expected different values; {short(twice[0])} is one of the others"
            )
        if key in ("seed", "validation"):
            raise ValueError(f"{key}={values[0]!r}: {key} is no setting to choose; it is the same for all runs")
    if "seed" in base:
        raise ValueError(f"seed={base['seed']!r}: every combination has every seed; say how many with seeds")
    held_out = {"validation": VALIDATION, **base}
    if not held_out["validation"]:
        raise ValueError("validation=0: settings are chosen on held-out training data; give its share, such as 0.1")
    if prod(map(len, grid.values())) > MOST_RUNS:
        raise ValueError(f"{prod(map(len, grid.values()))} combinations: expected at most {MOST_RUNS}")
    found = {}
    for combination in product(*grid.values()):
        changes = nested(dict(zip(grid, combination, strict=True)))
        label = ", ".join(f"{key}={value}" for key, value in zip(grid, combination, strict=True))
        found[label] = build_spec(merged(held_out, changes))
    return found


def best(rows: Sequence[Row], metric: str = "average_accuracy") -> Row:
    """The row with the best mean of a metric, among those whose runs all finished.

    Raises:
        ValueError: An unknown metric, or no such row.
    """
    check_metric(metric)
    means = {row.label: spread[0] for row in rows if not row.errors and (spread := row.spread(metric)) is not None}
    if not means:
        reason = next((error for row in rows for error in row.errors.values()), "nothing was run")
        raise ValueError(f"no combination finished with every seed: {reason}")
    return next(row for row in rows if row.label == BETTER[metric](means, key=means.__getitem__))


def cost(outcomes: Sequence[Outcome], wall_seconds: float) -> dict[str, Any]:
    """What a search took: runs, how many of them were finished before, and seconds (of training; on the wall)."""
    return {
        "runs": len(outcomes),
        "reused": sum(outcome.reused for outcome in outcomes),
        "seconds": round(sum(outcome.result.seconds for outcome in outcomes if outcome.result is not None), 1),
        "wall_seconds": round(wall_seconds, 1),
    }


def check_metric(metric: str) -> None:
    """Refuse a metric that nothing can be chosen by.

    Raises:
        ValueError: It is not among those that can be (intransigence is not: runs that are tuned have no reference).
    """
    if metric not in BETTER:
        raise ValueError(f"metric={metric!r}{closest(metric, BETTER)}: choose one of {', '.join(BETTER)}")
