"""A window of the path score: where it begins, and what it comes to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rwalk.core.backends import Backends
from rwalk.core.buckets import Bucket
from rwalk.core.config import RWalkConfig
from rwalk.core.parts import Part
from rwalk.core.sharding import over_processes, weights_in_sums

__all__ = ["begin", "close", "drop", "remember_fisher"]


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
    settled: Sequence[Part], config: RWalkConfig, backends: Backends, step: int, waiting: Sequence[Part] = ()
) -> None:
    """Turn the window's loss change into a score and add it; of ``waiting`` parts the last step has to be settled."""
    parts = [*settled, *waiting]
    damping: float | Tensor = config.damping_value
    if config.damping_scale == "relative":
        damping = _mean_distance(parts, config, backends) * config.damping_value
    for index, part in enumerate(parts):
        floor = torch.finfo(part.bucket.dtype).tiny / torch.finfo(part.bucket.dtype).eps
        if config.damping_scale == "relative":  # where nothing moved, ΔL / ε stays finite
            damping = max(damping, floor)
        settles = index >= len(settled)
        backends.of(part.bucket).close(part, config, damping=damping, step=step, settles=settles)


def drop(buckets: Iterable[Bucket]) -> None:
    """Forget what the open window has gathered."""
    for bucket in buckets:
        if "loss_change" in bucket.flat:
            bucket.flat["loss_change"].zero_()


def _mean_distance(parts: Sequence[Part], config: RWalkConfig, backends: Backends) -> float:
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
