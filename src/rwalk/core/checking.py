"""What a state must be before anything goes on from it, whatever file or dictionary it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rwalk.core import compact
from rwalk.core.config import RWalkConfig
from rwalk.core.container import Deferred, shown
from rwalk.errors import StateError

__all__ = ["ALWAYS", "COUNTERS", "PERSISTENT", "SCHEMA", "check_state", "fault"]

#: What is written. 1 is read too.
SCHEMA = 2
COUNTERS = ("tasks", "steps", "task_steps", "window_steps")
ALWAYS = ("fisher", "score")
WINDOW = ("loss_change", "window_start", "displacement", "window_fisher")
PERSISTENT = (*ALWAYS, *WINDOW, "task_score", "average", "importance", "anchor")
COUNTS = ("updates", "last_task", "averaged")
FROZEN = ("importance", "anchor")
NON_NEGATIVE = frozenset(("fisher", "window_fisher", "importance"))
FLOATING = (torch.float32, torch.float64, torch.bfloat16)
#: More steps than anyone takes, and exact in any number format.
MOST = 2**53


def check_state(state: object) -> RWalkConfig:
    """Check all of a state but its tensors' elements.

    Args:
        state: What ``RWalk.state_dict`` returned, or ``files.opened`` read.

    Returns:
        The config that it was saved with.

    Raises:
        StateError: It is not such a state.
    """
    if not isinstance(state, Mapping):
        raise StateError(f"not an rwalk state, but {shown(state)}")
    for key in ("schema", "config", "parameters", *COUNTERS):
        if key not in state:
            raise StateError(f"not an rwalk state: it has no {key!r}")
    schema = state["schema"]
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise StateError(
            f"state schema {shown(schema)}: this rwalk reads 1 to {SCHEMA}; load it with the rwalk that wrote it"
        )
    config = _config(state["config"])
    _check_counters(state)
    _check_parameters(state)
    return config


def fault(quantity: str, values: Tensor, tasks: int) -> str | None:
    """What is wrong with the elements of a quantity; None if nothing is."""
    if values.dtype is torch.bool or not values.numel():
        return None
    low, high = (float(extreme) for extreme in torch.aminmax(values))
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        return "not finite"
    if quantity in NON_NEGATIVE and low < 0:
        return "negative"
    if quantity == "importance" and not tasks and high > 0:
        return "not zero, though no task has ended"
    return None


def _config(values: object) -> RWalkConfig:
    if not isinstance(values, Mapping):
        raise StateError(f"the state's config is {shown(values)}")
    try:
        return RWalkConfig.from_dict(dict(values))
    except (TypeError, ValueError, OverflowError) as error:
        said = str(error)
        raise StateError(f"the state's config: {said if len(said) < 400 else said[:380] + '…'}") from None


def _check_counters(state: Mapping[str, Any]) -> None:
    for name in COUNTERS:
        _check_count(f"the state's {name}", state[name], MOST)
    tasks, steps = state["tasks"], state["steps"]
    for name in ("task_steps", "window_steps"):
        if state[name] > steps:
            raise StateError(f"the state's {name} are {state[name]}, of {steps} steps in all: it is damaged")
    if not state["parameters"] and (tasks or steps):
        raise StateError(
            f"the state of {steps} steps holds no parameter: torch.distributed.checkpoint, say, fills in only "
            "what a new RWalk has, which is nothing; save() the state beside such a checkpoint, and load() it"
        )


def _check_parameters(state: Mapping[str, Any]) -> None:
    parameters, is_compact = state["parameters"], state.get("compact", False)
    if not isinstance(parameters, Mapping):
        raise StateError(f"the state's parameters are {shown(parameters)}")
    if type(is_compact) is not bool or (is_compact and not state["tasks"]):
        raise StateError(f"the state's compact is {shown(is_compact)}, after {state['tasks']} tasks")
    protected = state.get("protected", False)
    if type(protected) is not bool or (protected and not state["tasks"]):
        raise StateError(f"the state's protected is {shown(protected)}, after {state['tasks']} tasks")
    for name, values in parameters.items():
        if not isinstance(name, str) or not isinstance(values, Mapping):
            raise StateError(f"the state of {shown(name)} is {shown(values)}: it is damaged")
    if is_compact:
        for name, values in parameters.items():
            _check_compact(name, values)
        return
    kept = {quantity for values in parameters.values() for quantity in values} & set(PERSISTENT)
    kept |= {*ALWAYS, *(FROZEN if state["tasks"] else ())}
    if "loss_change" in kept and not kept & {"window_start", "displacement"}:
        raise StateError("the state has an open window's loss_change, and not where it began: it is damaged")
    for name, values in parameters.items():
        _check_parameter(name, values, kept, state["tasks"])


def _check_parameter(name: str, values: Mapping[Any, Any], kept: set[str], tasks: int) -> None:
    missing = sorted({"updates", *kept} - set(values))
    if missing:
        raise StateError(f"the state of {shown(name)} has no {missing[0]!r}: it is damaged")
    _check_count(f"updates of {shown(name)}", values["updates"], MOST)
    _check_count(f"last_task of {shown(name)}", values.get("last_task", tasks), tasks)
    _check_count(f"averaged of {shown(name)}", values.get("averaged", 0), MOST)
    shape = getattr(values["fisher"], "shape", None)
    for quantity, value in values.items():
        if quantity in COUNTS:
            continue
        if quantity not in (*PERSISTENT, "fresh"):
            raise StateError(f"the state of {shown(name)} has {shown(quantity)}, which no state has")
        _check_tensor(name, quantity, value, (torch.bool,) if quantity == "fresh" else FLOATING)
        if value.shape != shape:
            raise StateError(f"{shown(name)}: its {quantity} and its fisher differ in shape: the state is damaged")


def _check_compact(name: str, values: Mapping[Any, Any]) -> None:
    wanted = {*compact.STORED, *compact.SCALARS}
    if set(values) != wanted:
        first = sorted(map(str, set(values) ^ wanted))[0]
        raise StateError(f"the compact state of {shown(name)} lacks {shown(first)}, or should not have it")
    for quantity, dtype in compact.STORED.items():
        _check_tensor(name, quantity, values[quantity], (dtype,))
    if values["importance"].shape != values["anchor"].shape:
        raise StateError(f"{shown(name)}: its importance and its anchor differ in shape: the state is damaged")
    high, step, exponent = (values[scalar] for scalar in compact.SCALARS)
    fits = type(high) is type(step) is float and 0 <= high < float("inf") and 0 <= step <= 1
    if not fits or type(exponent) is not int or abs(exponent) > 1100:
        raise StateError(f"{shown(name)}: its scales are {shown(high)}, {shown(step)}, {shown(exponent)}: damaged")


def _check_tensor(name: str, quantity: str, value: object, dtypes: tuple[torch.dtype, ...]) -> None:
    if not isinstance(value, Tensor | Deferred):
        raise StateError(f"{shown(name)}: its {quantity} is {shown(value)}, not a tensor: the state is damaged")
    if value.dtype not in dtypes:
        raise StateError(f"{shown(name)}: its {quantity} is in {value.dtype}, not in {dtypes[0]}")
    if isinstance(value, Tensor) and (value.layout is not torch.strided or value.device.type == "meta"):
        raise StateError(f"{shown(name)}: its {quantity} is no dense tensor in memory")


def _check_count(what: str, value: object, most: int) -> None:
    if type(value) is not int or not 0 <= value <= most:
        raise StateError(f"{what}: {shown(value)} is no whole number from 0 to {most}: the state is damaged")
