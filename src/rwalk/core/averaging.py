"""The average of a task's iterates: nearer its minimum than the last of them, where the steps' noise cancels out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rwalk.core.sharding import local
from rwalk.core.state import Bucket, Cohort, Tracked

__all__ = ["POWER", "average", "ends", "forget", "restart"]

#: The k-th iterate weighs about k to this power: the average is mostly of the last quarter of the task, however long
#: that turns out to be.
POWER = 3


def average(cohorts: Iterable[Cohort], *, mends: bool = False) -> None:
    r"""Take the weights, as they are now, into each parameter's average.

    .. math:: \bar\theta_k = \bar\theta_{k-1} + \frac{\eta + 1}{k + \eta}\,(\theta_k - \bar\theta_{k-1}), \quad \eta = 3

    Args:
        cohorts: The parameters. One that has left the optimizer counts with the weights that it left with, as if it
            were frozen.
        mends: Weights may have been lost since the last time: where the average is not finite, it begins anew.

    References:
        Shamir & Zhang, *Stochastic Gradient Descent for Non-smooth Optimization*, ICML 2013: averaging with
        polynomial decay.
    """
    for cohort in cohorts:
        for entry, mean, weights in zip(cohort.entries, cohort.views("average"), cohort.weights(), strict=True):
            entry.averaged += 1
            if entry.averaged == 1:  # whatever was there before, finite or not
                mean.copy_(weights)
            else:
                present = weights.to(mean.dtype)
                mean.lerp_(present, (POWER + 1) / (entry.averaged + POWER))
                if mends:
                    mean.copy_(torch.where(mean.isfinite(), mean, present))


def ends(bucket: Bucket, *, averaged: bool) -> Sequence[Tensor]:
    """Where the task ended for each parameter of a bucket: at the average, where there is one and it is asked for.

    Where the average is not finite, because weights were not on the way, it is where they are now.
    """
    return [
        _finite_or(bucket.view(entry, "average"), entry) if averaged and entry.averaged else local(entry.parameter)
        for entry in bucket.starts
    ]


def _finite_or(mean: Tensor, entry: Tracked) -> Tensor:
    return torch.where(mean.isfinite(), mean, local(entry.parameter).detach().to(mean.dtype))


def restart(entries: Iterable[Tracked]) -> None:
    """Begin the average anew: the next iterate is the first."""
    for entry in entries:
        entry.averaged = 0


def forget(buckets: Iterable[Bucket]) -> None:
    """Give up the averages' memory; whoever holds views of it must let go of them."""
    for bucket in buckets:
        restart(bucket.starts)
        bucket.flat.pop("average", None)
