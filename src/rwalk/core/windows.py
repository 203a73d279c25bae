"""A window of the path score: where it begins, and what it comes to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from rwalk.core.backends import Backends
from rwalk.core.buckets import Bucket
from rwalk.core.config import RWalkConfig
from rwalk.core.parts import Part
from rwalk.core.sharding import over_processes, weights_in_sums

__all__ = ["begin", "close", "drop", "mean_distance", "remember_fisher"]


def begin(parts: Iterable[Part], config: RWalkConfig) -> None:
    """Remember where every parameter stands as a window begins."""
    for part in parts:
        if config.window == "start":
            part.gather("window_start", part.parameters)
        elif config.window == "displaced":
            part.bucket.require("displacement")[0].zero_()


def remember_fisher(buckets: Iterable[Bucket], config: RWalkConfig) -> None:
    """Remember the Fisher with which a window begins, where that measures its distance."""
    if config.fisher_in_score == "window_start":
        for bucket in buckets:
            fisher, remembered = bucket.require("fisher", "window_fisher")
            remembered.copy_(fisher)


def close(
    settled: Sequence[Part],
    waiting: Sequence[Part],
    config: RWalkConfig,
    backends: Backends,
    *,
    step: int,
    mean_distance: float | None,
) -> None:
    """Turn the window's loss change into a score and add it.

    Args:
        settled: Parameters of which nothing is to be settled.
        waiting: Those of which the last step is.
        config: For the score's settings.
        backends: Run the equations.
        step: The run's number of the step.
        mean_distance: What a relative damping is measured in.
    """
    for settles, parts in ((False, settled), (True, waiting)):
        for part in parts:
            damping = config.damping_value
            if mean_distance is not None:  # where nothing moved, ΔL / ε stays finite
                floor = torch.finfo(part.bucket.dtype).tiny / torch.finfo(part.bucket.dtype).eps
                damping = max(mean_distance * damping, floor)
            backends.of(part.bucket).close(part, config, damping=damping, step=step, settles=settles)


def drop(buckets: Iterable[Bucket]) -> None:
    """Forget what the open window has gathered."""
    for bucket in buckets:
        if "loss_change" in bucket.flat:
            bucket.flat["loss_change"].zero_()


def mean_distance(parts: Sequence[Part], config: RWalkConfig, backends: Backends) -> float:
    """The window's distance, averaged over all elements of all parameters (and all processes' shards)."""
    watched = [entry for part in parts for entry in part.watched]
    parameters = [entry.parameter for entry in watched]
    weights = dict(zip(watched, weights_in_sums(parameters), strict=True))
    distance, count = 0.0, 0.0
    for part in parts:
        for weight, alike in part.grouped(weights).items():
            distance += weight * float(backends.of(part.bucket).distance(alike, config))
            count += weight * alike.elements
    sums = torch.tensor([distance, count], dtype=torch.float64)
    total, count = over_processes(sums, parameters, "sum").tolist()
    return float(total / max(count, 1.0))
