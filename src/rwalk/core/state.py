"""RWalk's state as plain values and tensors by parameter name, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rwalk.core.config import RWalkConfig
from rwalk.core.sharding import join, local, own_share
from rwalk.core.tracking import Tracker

__all__ = ["COUNTERS", "SCHEMA", "export", "restore"]

SCHEMA = 1
COUNTERS = ("tasks", "steps", "task_steps", "window_steps")
ALWAYS = ("fisher", "score")
WINDOW = ("loss_change", "window_start", "displacement", "window_fisher")
PERSISTENT = (*ALWAYS, *WINDOW, "task_score", "importance", "anchor")


def export(tracker: Tracker, counters: Mapping[str, int], *, kept: bool = True) -> dict[str, Any]:
    """Copy the state out of its buckets; shards are put together, which all processes have to take part in.

    Args:
        tracker: Holds the state.
        counters: Go into it as they are.
        kept: Whether this process has a use for what is put together; else it is let go at once.

    Returns:
        ``schema``, ``config``, the counters, and ``parameters``: name → ``updates`` (int) and a tensor for each
        quantity that exists, in the parameter's shape.
    """
    parameters: dict[str, dict[str, Any]] = {}
    buckets = tracker.buckets
    present = tracker.parameters()
    quantities = [name for name in PERSISTENT if name in ALWAYS or any(name in bucket.flat for bucket in buckets)]
    for bucket in buckets:
        bucket.require(*quantities)
        for name, slot in bucket.slots.items():
            entry: dict[str, Any] = {"updates": slot.updates}
            found = {quantity: bucket.views(quantity)[name] for quantity in quantities}
            if slot.fresh is not None:
                found["fresh"] = slot.fresh
            for quantity, view in found.items():
                whole = join(view.to(bucket.device, copy=True), present.get(name))
                if kept:
                    entry[quantity] = whole.cpu() if slot.layout is not None else whole
            parameters[name] = entry
    return {"schema": SCHEMA, "config": tracker.config.to_dict(), **counters, "parameters": parameters}


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
    if not saved and (state["tasks"] or state["steps"]):
        raise ValueError(
            f"the state of {state['steps']} steps holds no parameter: torch.distributed.checkpoint, say, fills in only "
            "what a new RWalk has, which is nothing; save() the state beside such a checkpoint, and load() it"
        )
    unknown = sorted(set(saved) - set(entries))
    if unknown:
        raise ValueError(
            f"the state holds {len(unknown)} parameter(s) that this model and optimizer do not, first {unknown[0]!r}: "
            "build the model as it was when the state was saved, and give all of it to the optimizer"
        )
    kept = [name for name in PERSISTENT if name in ALWAYS or any(name in values for values in saved.values())]
    for name, values in saved.items():
        missing = [quantity for quantity in kept if quantity not in values]
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
            parameter = entries[name].parameter
            slot.fresh = None if fresh is None else own_share(fresh, parameter).to(bucket.device, torch.bool)
            for quantity in _needed(tracker.config, saved[name]):
                bucket.views(quantity)[name].copy_(_value(quantity, saved[name], parameter))
    counters = {name: int(state[name]) for name in COUNTERS}
    if tracker.config.window == "step":  # an open window is not gone on with
        counters["window_steps"] = 0
    return counters


def _needed(config: RWalkConfig, values: Mapping[str, Any]) -> list[str]:
    """The saved quantities that a config goes on with; where a window's displacement is kept is its own choice."""
    displacement = {"start": "window_start", "displaced": "displacement", "step": ""}[config.window]
    needed = [quantity for quantity in (*ALWAYS, "task_score", "importance", "anchor") if quantity in values]
    if displacement and "loss_change" in values:
        needed += ["loss_change", displacement]
        needed += ["window_fisher"] if "window_fisher" in values else []
    return needed


def _value(quantity: str, values: Mapping[str, Any], parameter: torch.Tensor) -> torch.Tensor:
    if quantity in values:
        return own_share(values[quantity], parameter)
    present = local(parameter).detach().to("cpu", torch.float64)
    other = own_share(values["displacement" if quantity == "window_start" else "window_start"], parameter).cpu()
    return present + other if quantity == "window_start" else other - present


def _check_schema(state: Mapping[str, Any]) -> None:
    missing = [key for key in ("schema", "config", "parameters", *COUNTERS) if key not in state]
    if missing:
        raise ValueError(f"not an rwalk state: it has no {missing[0]!r}")
    if state["schema"] != SCHEMA:
        raise ValueError(
            f"state schema {state['schema']!r}: this rwalk reads {SCHEMA}; load it with the rwalk that wrote it"
        )
