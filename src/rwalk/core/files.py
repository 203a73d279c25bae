"""RWalk's state as plain values and tensors by parameter name, and as a file.

The file is safetensors, so that it outlives torch versions and never runs code when it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rwalk.core.config import RWalkConfig
from rwalk.core.sharding import join, local, own_share
from rwalk.core.state import Tracked
from rwalk.core.tracking import Tracker

__all__ = ["COUNTERS", "SCHEMA", "export", "inspect_state", "load_state", "restore", "save_state"]

SCHEMA = 1
KEY = "rwalk"
COUNTERS = ("tasks", "steps", "task_steps", "window_steps")
ALWAYS = ("fisher", "score")
WINDOW = ("loss_change", "window_start", "displacement", "window_fisher")
PERSISTENT = (*ALWAYS, *WINDOW, "task_score", "importance", "anchor")


def export(tracker: Tracker, counters: Mapping[str, int], *, kept: bool = True) -> dict[str, Any]:
    """Copy the state out of its buckets; shards are put together, which all processes have to take part in.

    Args:
        tracker: Holds the state, with nothing pending.
        counters: Go into it as they are.
        kept: Whether this process has a use for what is put together; else it is let go at once.

    Returns:
        ``schema``, ``config``, the counters, and ``parameters``: name → ``updates`` and ``last_task`` (int) and a
        tensor for each quantity that exists, in the parameter's shape. Parameters that had no step are absent.
    """
    parameters: dict[str, dict[str, Any]] = {}
    buckets = tracker.buckets
    quantities = [name for name in PERSISTENT if name in ALWAYS or any(name in bucket.flat for bucket in buckets)]
    for bucket in buckets:
        bucket.require(*quantities)
        for tracked in bucket.starts:
            if tracked.last_task is None:
                continue
            entry: dict[str, Any] = {"updates": tracked.updates, "last_task": tracked.last_task}
            found = {quantity: bucket.view(tracked, quantity) for quantity in quantities}
            if tracked.left_at is not None:  # as if it had stayed where it is now
                jump = local(tracked.parameter).detach().to(found["window_start"]) - tracked.left_at
                found["window_start"] = found["window_start"] + jump
            if tracked.fresh is not None:
                found["fresh"] = tracked.fresh
            for quantity, view in found.items():
                whole = join(view.to(bucket.device, copy=True), tracked.parameter)
                if kept:
                    entry[quantity] = whole.cpu() if tracked.placement and tracked.placement.layout else whole
            parameters[tracked.name] = entry
    return {"schema": SCHEMA, "config": tracker.config.to_dict(), **counters, "parameters": parameters}


def restore(tracker: Tracker, state: Mapping[str, Any]) -> dict[str, int]:
    """Replace the tracker's state by one that is built aside first.

    Returns:
        The counters.

    Raises:
        ValueError: Not an rwalk state, of a newer schema, or for other parameters; the tracker is then unchanged.
    """
    _check_schema(state)
    counters = {name: int(state[name]) for name in COUNTERS}
    saved: Mapping[str, Mapping[str, Any]] = state["parameters"]
    if not saved and (counters["tasks"] or counters["steps"]):
        raise ValueError(
            f"the state of {state['steps']} steps holds no parameter: torch.distributed.checkpoint, say, fills in only "
            "what a new RWalk has, which is nothing; save() the state beside such a checkpoint, and load() it"
        )
    tracker.match()
    aside = tracker.without_state(saved)
    entries = {entry.name: entry for entry in aside.entries}
    unknown = sorted(set(saved) - set(entries))
    if unknown:
        raise ValueError(
            f"the state holds {len(unknown)} parameter(s) that this model does not, first {unknown[0]!r}: "
            "build the model as it was when the state was saved"
        )
    _check_parameters(saved, entries)
    aside.make_room([entries[name] for name in saved])  # in the saved order: sums over parameters then round alike
    for bucket in aside.buckets:
        for entry in bucket.starts:
            values = saved[entry.name]
            entry.updates = int(values["updates"])
            entry.last_task = int(values.get("last_task", counters["tasks"]))
            fresh = values.get("fresh")
            entry.fresh = None if fresh is None else own_share(fresh, entry.parameter).to(bucket.device, torch.bool)
            for quantity in _needed(tracker.config, values):
                bucket.view(entry, quantity).copy_(_value(quantity, values, entry))
    if tracker.config.window == "step":  # an open window is not gone on with
        counters["window_steps"] = 0
    tracker.replace_state(aside)
    return counters


def _check_parameters(saved: Mapping[str, Mapping[str, Any]], entries: Mapping[str, Tracked]) -> None:
    kept = [name for name in PERSISTENT if name in ALWAYS or any(name in values for values in saved.values())]
    for name, values in saved.items():
        missing = [quantity for quantity in ("updates", *kept) if quantity not in values]
        if missing:
            raise ValueError(f"the state of {name!r} has no {missing[0]!r}: it is damaged")
        expected = tuple(entries[name].parameter.shape)
        for quantity, value in values.items():
            if isinstance(value, Tensor) and tuple(value.shape) != expected:
                found = tuple(value.shape)
                raise ValueError(f"{name!r} has shape {found} in the state ({quantity}) and {expected} in the model")


def _needed(config: RWalkConfig, values: Mapping[str, Any]) -> list[str]:
    """The saved quantities that a config goes on with; where a window's displacement is kept is its own choice."""
    displacement = {"start": "window_start", "displaced": "displacement", "step": ""}[config.window]
    needed = [quantity for quantity in (*ALWAYS, "task_score", "importance", "anchor") if quantity in values]
    if displacement and "loss_change" in values:
        needed += ["loss_change", displacement]
        needed += ["window_fisher"] if "window_fisher" in values else []
    return needed


def _value(quantity: str, values: Mapping[str, Any], entry: Tracked) -> Tensor:
    if quantity in values:
        return own_share(values[quantity], entry.parameter)
    present = local(entry.parameter).detach().to("cpu", torch.float64)
    other = own_share(values["displacement" if quantity == "window_start" else "window_start"], entry.parameter).cpu()
    return present + other if quantity == "window_start" else other - present


def _check_schema(state: Mapping[str, Any]) -> None:
    missing = [key for key in ("schema", "config", "parameters", *COUNTERS) if key not in state]
    if missing:
        raise ValueError(f"not an rwalk state: it has no {missing[0]!r}")
    if state["schema"] != SCHEMA:
        raise ValueError(
            f"state schema {state['schema']!r}: this rwalk reads {SCHEMA}; load it with the rwalk that wrote it"
        )


def save_state(state: Mapping[str, Any], path: str | Path) -> None:
    """Write a ``state_dict`` atomically: the file is either complete or not there.

    Tensors are stored as ``quantity/parameter.name``; all else as JSON in the file's metadata, with a fingerprint of
    names and shapes.

    Args:
        state: What ``RWalk.state_dict`` returned.
        path: Where to. An existing file is replaced.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for name, values in state["parameters"].items():
        scalars[name] = {key: value for key, value in values.items() if not isinstance(value, Tensor)}
        tensors.update(
            {f"{key}/{name}": value.contiguous() for key, value in values.items() if isinstance(value, Tensor)}
        )
    header = {key: value for key, value in state.items() if key != "parameters"}
    header.update(
        parameters=scalars,
        fingerprint=fingerprint({name: v["fisher"].shape for name, v in state["parameters"].items()}),
    )
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata={KEY: json.dumps(header)})
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_state(path: str | Path) -> dict[str, Any]:
    """Read a state file back into a ``state_dict``, tensors on the CPU.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a safetensors file, not rwalk's, or damaged.
    """
    state = inspect_state(path)
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 - not a mapping
            quantity, _, name = key.partition("/")
            state["parameters"].setdefault(name, {})[quantity] = file.get_tensor(key)
    shapes = {name: values["fisher"].shape for name, values in state["parameters"].items() if "fisher" in values}
    if fingerprint(shapes) != state.pop("fingerprint"):
        raise ValueError(
            f"{path}: names or shapes do not match the file's own fingerprint; it was changed after saving"
        )
    return state


def inspect_state(path: str | Path) -> dict[str, Any]:
    """Read what a state file says of itself (config, counters, parameters) without its tensors.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a safetensors file, or not rwalk's.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no rwalk state at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from None
    if KEY not in metadata:
        raise ValueError(f"{path} is a safetensors file, but not one that RWalk.save wrote")
    header: dict[str, Any] = json.loads(metadata[KEY])
    return header


def fingerprint(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """SHA-256 of the parameters' names and shapes, in hexadecimal."""
    listing = json.dumps(sorted((name, list(shape)) for name, shape in shapes.items()))
    return hashlib.sha256(listing.encode()).hexdigest()
