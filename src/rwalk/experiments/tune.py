"""Choosing settings on data held out of the training set; the test data is never looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from rwalk.experiments.comparison import merged
from rwalk.experiments.loading import build_spec
from rwalk.experiments.spec import RunSpec
from rwalk.experiments.summary import Row

__all__ = ["VALIDATION", "best", "candidates"]

#: Share of the training data that is held out where a spec names none.
VALIDATION = 0.1


def candidates(base: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]) -> dict[str, RunSpec]:
    """A spec for each combination of a grid, all of them judged on held-out training data.

    Args:
        base: Settings that all share.
        grid: Values by key; ``rwalk.ewc_lambda`` reaches into ``rwalk``.

    Raises:
        ValueError: A key without values, or settings that make no spec.

    Example:
        >>> list(candidates({"benchmark": "split-digits", "method": "rwalk"}, {"rwalk.ewc_lambda": [1.0, 3.0]}))
        ['rwalk.ewc_lambda=1.0', 'rwalk.ewc_lambda=3.0']
    """
    for key, values in grid.items():
        if not values:
            raise ValueError(f"{key}: no values to choose from")
    held_out = {"validation": VALIDATION, **base}
    if not held_out["validation"]:
        raise ValueError("validation=0: settings are chosen on held-out training data; give its share, such as 0.1")
    found = {}
    for combination in product(*grid.values()):
        changes: dict[str, Any] = {}
        for key, value in zip(grid, combination, strict=True):
            outer, _, inner = key.partition(".")
            changes = merged(changes, {outer: {inner: value} if inner else value})
        label = ", ".join(f"{key}={value}" for key, value in zip(grid, combination, strict=True))
        found[label] = build_spec(merged(held_out, changes))
    return found


def best(rows: Sequence[Row], metric: str = "average_accuracy") -> Row:
    """The row of the highest mean of a metric.

    Raises:
        ValueError: Every run failed.
    """
    means = {row.label: spread[0] for row in rows if not row.errors and (spread := row.spread(metric)) is not None}
    if not means:
        reason = next((error for row in rows for error in row.errors.values()), "nothing was run")
        raise ValueError(f"no combination finished with every seed: {reason}")
    return next(row for row in rows if row.label == max(means, key=means.__getitem__))
