"""RWalk's state as plain values and tensors by parameter name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rwalk.core import compact
from rwalk.core.checking import ALWAYS, FROZEN, PERSISTENT, SCHEMA, fault
from rwalk.core.container import Deferred, in_threads
from rwalk.core.sharding import join, local
from rwalk.core.state import Bucket, Tracked
from rwalk.core.tracking import Tracker
from rwalk.errors import RWalkError

__all__ = ["compacted", "export", "made"]


def export(tracker: Tracker, counters: Mapping[str, int]) -> dict[str, Any]:
    """The state out of its buckets, each tensor when it is asked for.

    Args:
        tracker: Holds the state, with nothing pending.
        counters: Go into it as they are.

    Returns:
        ``schema``, ``config``, the counters, and ``parameters``: name → ``updates``, ``last_task``, beside an average
        ``averaged`` (int), and a ``Deferred`` for each quantity that exists, in the parameter's whole shape. What it
        makes may be the state's own memory. Where shards have to be put together, all processes have to make all of
        them, in this order. Parameters that had no step are absent.
    """
    parameters: dict[str, dict[str, Any]] = {}
    buckets = tracker.buckets
    quantities = [name for name in PERSISTENT if name in ALWAYS or any(name in bucket.flat for bucket in buckets)]
    quantities += [name for name in FROZEN if counters["tasks"] and name not in quantities]
    for bucket in buckets:
        bucket.require(*quantities)
        for tracked in bucket.starts:
            if tracked.last_task is not None:
                entry: dict[str, Any] = {"updates": tracked.updates, "last_task": tracked.last_task}
                if "average" in quantities:
                    entry["averaged"] = tracked.averaged
                for quantity in quantities:
                    entry[quantity] = _deferred(bucket, tracked, quantity)
                if tracked.fresh is not None:
                    shape = torch.Size(tracked.parameter.shape)
                    entry["fresh"] = Deferred(shape, torch.bool, partial(join, tracked.fresh, tracked.parameter))
                parameters[tracked.name] = entry
    return {"schema": SCHEMA, "config": tracker.config.to_dict(), **counters, "parameters": parameters}


def made(state: Mapping[str, Any], *, kept: bool = True) -> dict[str, Any]:
    """The same state with tensors of its own in place of those to be made.

    Args:
        state: From ``export``.
        kept: Whether this process has a use for them; else each is let go at once.
    """
    parameters: dict[str, dict[str, Any]] = {name: dict(values) for name, values in state["parameters"].items()}
    places = [(values, key) for values in parameters.values() for key in values if isinstance(values[key], Deferred)]
    read = iter(in_threads([values[key].whole for values, key in places if values[key].fill is not None]))
    for values, key in places:
        value = values.pop(key)
        found = value.whole().detach().clone() if value.fill is None else next(read)
        if kept:
            values[key] = found
    return {**state, "parameters": parameters}


def checked(state: Mapping[str, Any]) -> dict[str, Any]:
    """The same state, of which each tensor is checked when it is written: what is saved can be loaded.

    Raises:
        RWalkError: When a tensor is written, it holds what no state may.
    """

    def look(name: str, quantity: str, values: Tensor) -> None:
        wrong = fault(quantity, values, state["tasks"])
        if wrong is not None:
            raise RWalkError(
                f"the state cannot be saved: the {quantity} of {name!r} is {wrong}, because the weights or a loss "
                "overflowed. Lower the learning rate, or go on from the last state that was saved"
            )

    parameters = {
        name: {
            key: replace(value, look=partial(look, name, key)) if isinstance(value, Deferred) else value
            for key, value in values.items()
        }
        for name, values in state["parameters"].items()
    }
    return {**state, "parameters": parameters}


def compacted(state: Mapping[str, Any]) -> dict[str, Any]:
    """Importances and anchors alone, in three bytes a parameter.

    Tensors are made here, one at a time; what is kept of them is small.

    Raises:
        RWalkError: No task has ended, so that there are none.
    """
    if not state["tasks"]:
        raise RWalkError("compact=True keeps importances and anchors, and no task has ended: consolidate() first")
    parameters: dict[str, dict[str, Any]] = {}
    for name, values in state["parameters"].items():
        codes, high, step = compact.coded(values["importance"].whole())
        half, exponent = compact.halved(values["anchor"].whole())
        parameters[name] = {
            **dict(zip(compact.SCALARS, (high, step, exponent), strict=True)),
            "importance": Deferred.of(codes),
            "anchor": Deferred.of(half),
        }
    return {**state, "task_steps": 0, "window_steps": 0, "compact": True, "parameters": parameters}


def _deferred(bucket: Bucket, tracked: Tracked, quantity: str) -> Deferred:
    (flat,) = bucket.require(quantity)
    return Deferred(torch.Size(tracked.parameter.shape), flat.dtype, partial(_whole, bucket, tracked, quantity))


def _whole(bucket: Bucket, tracked: Tracked, quantity: str) -> Tensor:
    found = bucket.view(tracked, quantity)
    if quantity == "window_start" and tracked.left_at is not None:  # as if it had stayed where it is now
        found = found + (local(tracked.parameter).detach().to(found) - tracked.left_at)
    whole = join(found, tracked.parameter)
    return whole.cpu() if tracked.placement and tracked.placement.layout else whole
