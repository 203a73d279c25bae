"""A saved state takes the place of the present one, or nothing changes.

The new state is built aside, every tensor of it is checked, and then both are swapped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from rwalk.core import compact
from rwalk.core.checking import ALWAYS, COUNTERS, check_state, fault
from rwalk.core.config import RWalkConfig
from rwalk.core.container import Deferred, in_threads, shown
from rwalk.core.names import named_parameters, under_present_names
from rwalk.core.sharding import local, own_share
from rwalk.core.state import Bucket, Tracked
from rwalk.core.tracking import Tracker
from rwalk.errors import StateError

__all__ = ["restore"]

log = logging.getLogger(__name__)


def restore(tracker: Tracker, state: Mapping[str, Any], *, strict: bool = True) -> dict[str, int]:
    """Replace the tracker's state.

    Args:
        tracker: Holds the present state, which is untouched until the new one is complete.
        state: From ``state_dict`` or a file. Tensors are read once, one at a time.
        strict: Refuse parameters that the model does not have, or has in another shape. Otherwise those that it does
            not have are left out, and of others the block that both shapes contain is taken.

    Returns:
        The counters.

    Raises:
        StateError: It is damaged, or does not fit.
    """
    check_state(state)
    saved: Mapping[str, Mapping[str, Any]] = under_present_names(state["parameters"], tracker.model)
    aside = tracker.without_state(saved)
    entries = {entry.name: entry for entry in aside.entries}
    fitting = _fitting(saved, entries, tracker.model, strict=strict)
    # In the saved order: sums over parameters then round alike.
    aside.make_room([entries[name] for name in saved if name in fitting])
    buckets = {entry: bucket for bucket in aside.buckets for entry in bucket.starts}
    if strict and not state.get("compact"):  # all of each is read
        for bucket in aside.buckets:
            bucket.reserve(_needed(tracker.config, next(iter(saved.values()))).values())
    jobs: list[Callable[[], None]] = []
    for name, values in saved.items():
        if name in fitting:
            jobs += _fill(_Target(buckets[entries[name]], entries[name], tracker.config), values, state)
        else:
            _read_over(name, values, state)
    in_threads(jobs)
    _rejoin(aside, state, {quantity for values in saved.values() for quantity in values})
    counters = {name: int(state[name]) for name in COUNTERS}
    if tracker.config.window == "step":  # an open window is not gone on with
        counters["window_steps"] = 0
    if state.get("compact") and tracker.config.combine == "replace":
        log.warning(
            "a compact state protects until the next consolidate(), which with combine='replace' puts importances of "
            "the new task in place of those of the past: to keep both, load it with combine='sum'"
        )
    tracker.replace_state(aside)
    return counters


def _rejoin(aside: Tracker, state: Mapping[str, Any], kept: set[str]) -> None:
    """Bring what another config kept apart, or did not, to where this one looks for it.

    Args:
        aside: Holds all that was read.
        state: It comes from.
        kept: The quantities that are in it.

    Raises:
        StateError: A task's score was not kept apart from that of the tasks before.
    """
    config = aside.config
    if config.keeps_task_score and "task_score" not in kept and state["tasks"] and state["task_steps"]:
        raise StateError(
            "the state is of the middle of a task, whose score was not kept apart from that of the tasks before, as "
            f"rectify={config.rectify!r} with score_average={config.score_average!r} needs it: load() it with the "
            "config that it was saved with, consolidate(), and save() it then"
        )
    for bucket in aside.buckets:
        if config.keeps_task_score and "task_score" not in kept and not state["tasks"]:
            score, of_task = bucket.require("score", "task_score")
            of_task.copy_(score)
            score.zero_()
        if not config.keeps_task_score and "task_score" in bucket.flat:
            bucket.flat["score"] += bucket.flat.pop("task_score")
        if config.fisher_in_score == "window_start" and "window_fisher" not in kept and "loss_change" in kept:
            fisher, remembered = bucket.require("fisher", "window_fisher")
            remembered.copy_(fisher)
    aside.note_absent()


@dataclass(frozen=True)
class _Target:
    """Where a parameter's state goes."""

    bucket: Bucket
    entry: Tracked
    config: RWalkConfig

    @property
    def shape(self) -> torch.Size:
        return torch.Size(self.entry.parameter.shape)

    def put(
        self, quantity: str, value: Tensor | Deferred, tasks: int, source: str | None = None
    ) -> list[Callable[[], None]]:
        """A quantity of the whole parameter, cast and checked; if it has another shape, its block.

        A window's start can be made from its displacement, and the reverse: they differ by where the weights are.

        Returns:
            What is left to do, by any thread: reading what goes where it belongs as it is.
        """
        view = self.bucket.view(self.entry, quantity)
        as_it_is = (view.shape, view.dtype, view.device.type) == (value.shape, value.dtype, "cpu")
        if isinstance(value, Deferred) and value.fill is not None and as_it_is and source == quantity:
            return [partial(value.fill, view, partial(_check, self.entry.name, quantity, tasks))]
        self._convert(view, quantity, _made(value), source)
        _check(self.entry.name, quantity, tasks, view)
        return []

    def _convert(self, view: Tensor, quantity: str, value: Tensor, source: str | None) -> None:
        parameter, fits = self.entry.parameter, value.shape == self.shape
        share = own_share(value if fits else _widened(value, self.shape), parameter)
        present = local(parameter).detach()
        if source is not None and source != quantity:
            present, share = present.to("cpu", torch.float64), share.cpu()
            share = present + share if quantity == "window_start" else share - present
        if not fits:
            known = own_share(_widened(torch.ones(value.shape, dtype=torch.bool), self.shape), parameter)
            rest = present if quantity in ("window_start", "anchor", "average") else torch.zeros_like(present)
            share = torch.where(known.to(share.device), share, rest.to(share))
        view.copy_(share)


def _fitting(
    saved: Mapping[str, Mapping[str, Any]], entries: Mapping[str, Tracked], model: nn.Module, *, strict: bool
) -> set[str]:
    """The saved parameters that the model has."""
    unknown = [name for name in saved if name not in entries]
    shapes = {name: (_shape(saved[name]), tuple(entries[name].parameter.shape)) for name in saved if name in entries}
    other = [name for name, (found, expected) in shapes.items() if found != expected]
    left_out = named_parameters(model).keys() & unknown
    if strict and left_out:
        raise StateError(
            f"the state holds {len(left_out)} parameter(s) that include and exclude leave out here, first "
            f"{shown(sorted(left_out)[0])}: load it with patterns that take them in, or leave them with strict=False"
        )
    if strict and unknown:
        raise StateError(
            f"the state holds {len(unknown)} parameter(s) that this model does not, first {shown(sorted(unknown)[0])}: "
            "build the model as it was when the state was saved, or leave them out with strict=False"
        )
    if strict and other:
        found, expected = shapes[other[0]]
        raise StateError(
            f"{shown(other[0])} has shape {found} in the state and {expected} in the model: build the model as it was, "
            "or take what fits with strict=False"
        )
    dropped = unknown + [name for name in other if len(shapes[name][0]) != len(shapes[name][1])]
    fitting = {name for name in saved if name not in dropped}
    if saved and not fitting:
        raise StateError(f"the state has no parameter in common with this model; its first is {shown(dropped[0])}")
    if dropped or other:
        cut = [name for name in other if name in fitting]
        log.warning(
            "strict=False: %d parameter(s) of the state are left out (%s), of %d the part that fits is taken (%s)",
            *(len(dropped), ", ".join(dropped)[:2000] or "none", len(cut), ", ".join(cut)[:2000] or "none"),
        )
    return fitting


def _shape(values: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(values["importance" if "fisher" not in values else "fisher"].shape)


def _fill(target: _Target, values: Mapping[str, Any], state: Mapping[str, Any]) -> list[Callable[[], None]]:
    entry, tasks, left = target.entry, state["tasks"], list[Callable[[], None]]()
    if state.get("compact"):
        entry.updates, entry.last_task = 0, tasks - 1
        dtype = target.bucket.dtype
        high, step, exponent = (values[scalar] for scalar in compact.SCALARS)
        codes = _made(values["importance"])
        target.put("importance", compact.decoded(codes, high, step, dtype), tasks)
        target.put("anchor", compact.restored(_made(values["anchor"]), exponent, dtype), tasks)
        _note_growth(target, codes.shape, None)
        return left
    entry.updates, entry.last_task = values["updates"], values.get("last_task", tasks)
    _note_growth(target, torch.Size(_shape(values)), values.get("fresh"))
    needed = _needed(target.config, values)  # a quantity may serve for another
    entry.averaged = values.get("averaged", 0) if "average" in needed else 0
    for quantity, value in values.items():
        if isinstance(value, Tensor | Deferred) and quantity != "fresh":
            if quantity in needed:
                left += target.put(needed[quantity], value, tasks, source=quantity)
            else:
                _check(entry.name, quantity, tasks, _made(value))
    return left


def _note_growth(target: _Target, shape: torch.Size, fresh: Any) -> None:
    """Which elements have seen no gradient: those that had not, and those that the state does not have."""
    if fresh is None and shape == target.shape:
        return
    flags = torch.zeros(shape, dtype=torch.bool) if fresh is None else _made(fresh)
    if shape != target.shape:
        flags = ~_widened(~flags.cpu(), target.shape)
    target.entry.grew = prod(target.shape) > prod(shape)
    target.entry.fresh = own_share(flags, target.entry.parameter).to(target.bucket.device, torch.bool, copy=True)


def _needed(config: RWalkConfig, values: Mapping[str, Any]) -> dict[str, str]:
    """What a config goes on with, by what it is made from; where a window's displacement is kept is its own choice."""
    needed = {name: name for name in (*ALWAYS, "task_score", "importance", "anchor") if name in values}
    displacement = {"start": "window_start", "displaced": "displacement", "step": ""}[config.window]
    source = next((name for name in (displacement, "window_start", "displacement") if name in values), None)
    if displacement and "loss_change" in values and source is not None:
        needed |= {"loss_change": "loss_change", source: displacement}
        if "window_fisher" in values:
            needed["window_fisher"] = "window_fisher"
    if config.anchor_at == "average" and "average" in values:
        needed["average"] = "average"
    return needed


def _read_over(name: str, values: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """What is left out is checked all the same."""
    for quantity, value in values.items():
        if isinstance(value, Tensor | Deferred):
            found = _made(value)
            if not state.get("compact"):
                _check(name, quantity, state["tasks"], found)


def _check(name: str, quantity: str, tasks: int, value: Tensor) -> None:
    wrong = fault(quantity, value, tasks)
    if wrong is not None:
        raise StateError(f"the state of {shown(name)}: its {quantity} is {wrong}")


def _made(value: Any) -> Tensor:
    tensor: Tensor = value.make() if isinstance(value, Deferred) else value
    return tensor.detach()


def _widened(value: Tensor, shape: torch.Size) -> Tensor:
    """The block that both shapes contain, in a tensor of the other shape that is zero elsewhere."""
    wide = torch.zeros(shape, dtype=value.dtype, device=value.device)
    block = tuple(slice(0, min(sizes)) for sizes in zip(value.shape, shape, strict=True))
    wide[block] = value[block]
    return wide
