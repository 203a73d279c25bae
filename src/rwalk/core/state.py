"""RWalk's state as plain values and tensors by parameter name, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from rwalk.core.buckets import Bucket
from rwalk.core.config import RWalkConfig
from rwalk.core.tracking import Tracker

__all__ = ["COUNTERS", "SCHEMA", "export", "restore"]

SCHEMA = 1
COUNTERS = ("tasks", "steps", "task_steps", "window_steps")
ALWAYS = ("fisher", "loss_change", "score", "window_start")
PERSISTENT = (*ALWAYS, "task_score", "window_fisher", "importance", "anchor")


def export(buckets: Iterable[Bucket], config: RWalkConfig, counters: Mapping[str, int]) -> dict[str, Any]:
    """Copy the state out of its buckets.

    Returns:
        ``schema``, ``config``, the counters, and ``parameters``: name → ``updates`` (int) and a tensor for each
        quantity that exists, in the parameter's shape.
    """
    parameters: dict[str, dict[str, Any]] = {}
    for bucket in buckets:
        bucket.require(*ALWAYS)
        for name, slot in bucket.slots.items():
            entry: dict[str, Any] = {"updates": slot.updates}
            if slot.fresh is not None:
                entry["fresh"] = slot.fresh.clone()
            for quantity in PERSISTENT:
                if quantity in bucket.flat:
                    entry[quantity] = bucket.views(quantity)[name].clone()
            parameters[name] = entry
    return {"schema": SCHEMA, "config": config.to_dict(), **counters, "parameters": parameters}


def restore(tracker: Tracker, state: Mapping[str, Any]) -> dict[str, int]:
    """Replace the tracker's state.

    Returns:
        The counters.

    Raises:
        ValueError: Not an rwalk state, of a newer schema, or for other parameters; the tracker is then unchanged.
    """
    _check_schema(state)
    tracker.refresh()
    entries = {entry.name: entry for entry in tracker.watched}
    saved: Mapping[str, Mapping[str, Any]] = state["parameters"]
    unknown = sorted(set(saved) - set(entries))
    if unknown:
        raise ValueError(
            f"the state holds {len(unknown)} parameter(s) that this model and optimizer do not, first {unknown[0]!r}: "
            "build the model as it was when the state was saved, and give all of it to the optimizer"
        )
    for name, values in saved.items():
        missing = [quantity for quantity in ALWAYS if quantity not in values]
        if missing:
            raise ValueError(f"the state of {name!r} has no {missing[0]!r}: it is damaged")
        expected = tuple(entries[name].parameter.shape)
        for quantity, value in values.items():
            if isinstance(value, torch.Tensor) and tuple(value.shape) != expected:
                found = tuple(value.shape)
                raise ValueError(f"{name!r} has shape {found} in the state ({quantity}) and {expected} in the model")

    tracker.buckets = []
    for entry in tracker.watched:
        entry.placement = entry.seen = None
    tracker.place([entries[name] for name in saved])  # in the saved order: sums over parameters then round alike
    for bucket in tracker.buckets:
        for name, slot in bucket.slots.items():
            slot.updates = int(saved[name]["updates"])
            fresh = saved[name].get("fresh")
            slot.fresh = None if fresh is None else fresh.to(bucket.device, torch.bool)
            for quantity in PERSISTENT:
                if quantity in saved[name]:
                    bucket.views(quantity)[name].copy_(saved[name][quantity])
    return {name: int(state[name]) for name in COUNTERS}


def _check_schema(state: Mapping[str, Any]) -> None:
    missing = [key for key in ("schema", "config", "parameters", *COUNTERS) if key not in state]
    if missing:
        raise ValueError(f"not an rwalk state: it has no {missing[0]!r}")
    if state["schema"] != SCHEMA:
        raise ValueError(
            f"state schema {state['schema']!r}: this rwalk reads {SCHEMA}; load it with the rwalk that wrote it"
        )
