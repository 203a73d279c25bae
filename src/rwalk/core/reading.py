"""What the state says: the penalty's value, and what each weight is worth. Shards are put together."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from rwalk.core import functional as F
from rwalk.core.parts import Part
from rwalk.core.sharding import is_sharded, join, local, over_processes, weights_in_sums
from rwalk.core.tracking import Tracker

__all__ = ["importances", "penalty_value"]


def penalty_value(parts: Iterable[Part], strength: float) -> Tensor:
    """The penalty (Eq. 8) at the present weights: a scalar tensor, differentiable where no parameter is sharded."""
    whole = torch.zeros((), dtype=torch.float32)
    shards: list[Tensor] = []
    values: list[Tensor] = []
    for part in parts:
        for entry, importance, anchor in zip(part.watched, part.views("importance"), part.views("anchor"), strict=True):
            weights = local(entry.parameter).to(anchor.dtype)
            value = F.penalty(importance, weights, anchor, strength)
            if is_sharded(entry.parameter):
                shards.append(entry.parameter)
                values.append(value.detach())
            else:
                whole = whole.to(value) + value
    if not shards:
        return whole
    found = torch.stack([value.to(values[0]) for value in values]).double()
    sharded = (found * found.new_tensor(weights_in_sums(shards))).sum()
    return whole + over_processes(sharded, shards, "sum").to(values[0])


def importances(tracker: Tracker, quantity: str) -> dict[str, Tensor]:
    """Copies of ``importance``, ``fisher`` or ``score``, by parameter name, each in its parameter's shape."""
    values = {}
    parameters = tracker.parameters()
    for bucket in tracker.buckets:
        for name, view in bucket.views(quantity).items():
            value = view.to(bucket.device, bucket.dtype, copy=True)
            if quantity == "score" and tracker.config.keeps_task_score:
                value += bucket.views("task_score")[name].to(bucket.device)
            values[name] = join(value, parameters.get(name))
    return values
