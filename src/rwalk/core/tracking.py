"""Which parameters are in play: the model's names, the optimizer's groups and the flat state, held together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rwalk.core.buckets import Bucket, Placement, rearrange
from rwalk.core.config import RWalkConfig
from rwalk.core.naming import selected_parameters
from rwalk.core.parts import Part, Watched
from rwalk.core.sharding import ORDINARY, is_sharded, layout, local
from rwalk.core.storage import Storage
from rwalk.errors import RWalkError

__all__ = ["Tracker"]


class Tracker:
    """Follows a model and its optimizer, and lays out state for whatever receives a gradient.

    Args:
        model: The model; its parameter names key the state.
        optimizer: The optimizer; only what it moves is tracked.
        config: Chooses among the names.

    Raises:
        RWalkError: The optimizer holds none of the model's selected parameters, or maximises.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, config: RWalkConfig) -> None:
        self.model, self.optimizer, self.config = model, optimizer, config
        self.buckets: list[Bucket] = []
        self.watched: list[Watched] = []
        self.storage = Storage(compact=config.state_dtype == "bfloat16", offload=config.offload == "cpu")
        self._signature: list[list[int]] = []
        self._checked = False
        self._stepping: tuple[list[Watched], list[Part]] = ([], [])
        self.refresh()
        if not self.watched:
            raise RWalkError(
                f"the optimizer ({type(optimizer).__name__}) holds none of the parameters of {type(model).__name__} "
                f"that include={config.include!r}, exclude={config.exclude!r} select: "
                "build it from model.parameters(), or widen the patterns"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Parts find views by address, which a copy has others of."""
        return {**vars(self), "_stepping": ([], [])}

    def follow(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Go on with another optimizer or model; every parameter that has state must be found in it by name.

        Raises:
            RWalkError: One is not found; then nothing changes.
        """
        successor = Tracker(model, optimizer, self.config)
        found = selected_parameters(model, self.config)
        lost = [name for bucket in self.buckets for name in bucket.slots if name not in found]
        if lost:
            raise RWalkError(
                f"the model no longer has {lost[0]!r}, whose importances are kept: the model was "
                "replaced by a different one; start a new RWalk for it"
            )
        successor.buckets = self.buckets
        for entry in successor.watched:
            entry.placement = next((old.placement for old in self.watched if old.name == entry.name), None)
        vars(self).update(vars(successor))

    def refresh(self) -> None:
        """Match the optimizer's parameters with the model's names, if either may have changed."""
        groups = self.optimizer.param_groups
        signature = [list(map(id, group["params"])) for group in groups]
        if signature == self._signature:
            return
        self._checked = False
        if any(group.get("maximize") for group in groups):
            raise RWalkError(
                "the optimizer has maximize=True: RWalk scores a loss that falls; minimise its negative instead"
            )
        group_of = {id(p): index for index, group in enumerate(groups) for p in group["params"]}
        known = {entry.name: entry for entry in self.watched}
        self.watched = []
        for name, parameter in selected_parameters(self.model, self.config).items():
            if id(parameter) in group_of:
                self._check_source(name, parameter)
                entry = known.get(name) or Watched(name, parameter, 0)
                entry.parameter, entry.group, entry.seen = parameter, group_of[id(parameter)], None
                self.watched.append(entry)
        self._signature = signature

    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters by name, those that the optimizer no longer moves among them."""
        followed = {entry.name: entry.parameter for entry in self.watched}
        return {**selected_parameters(self.model, self.config), **followed}

    def check_model(self) -> None:
        """Make sure that the parameters followed are still the model's.

        Raises:
            RWalkError: The model has others in their place.
        """
        self.refresh()
        present = selected_parameters(self.model, self.config)
        for entry in self.watched:
            if entry.name in present and present[entry.name] is not entry.parameter:
                raise RWalkError(
                    f"{entry.name!r} of the model is no longer the parameter that the optimizer moves: it was replaced "
                    "after the optimizer was built (fully_shard does that, and assigning a new module). Wrap the model "
                    "first, then build the optimizer, then RWalk"
                )

    def stepping(self) -> list[Part]:
        """The parameters that have a gradient now, with state made for those that had none."""
        self.refresh()
        entries, gradients, settled = [], [], True
        for entry in self.watched:
            parameter = entry.parameter
            gradient = parameter.grad
            if gradient is None:
                continue
            seen = (parameter.shape, parameter.device, parameter.dtype)
            settled = settled and seen == entry.seen
            plain = type(gradient) is Tensor and type(parameter) in ORDINARY
            if not plain or (gradient.shape, gradient.device, gradient.dtype) != seen:
                gradient = _fitting(entry, gradient)
            elif gradient.layout is not torch.strided or gradient.is_complex():
                _check_gradient(entry.name, parameter, gradient)
            entries.append(entry)
            gradients.append(gradient)
        if not (entries and self._checked):  # once, and where nothing is learned
            self.check_model()
            self._checked = True
        known, parts = self._stepping
        if not settled or len(entries) < len(self.watched):
            self._make_room(entries)
            known, parts = self._stepping
        if entries != known:
            parts = self._parts(entries)
            self._stepping = (entries, parts)
        if len(parts) == 1:
            parts[0].take(gradients)
            return parts
        given = {id(entry): gradient for entry, gradient in zip(entries, gradients, strict=True)}
        for part in parts:
            part.take([given[id(entry)] for entry in part.watched])
        return parts

    def resident(self) -> list[Part]:
        """All parameters that have state, in their present shape."""
        self.make_room()
        return self._parts([entry for entry in self.watched if entry.placement is not None])

    def idle(self, parts: Sequence[Part]) -> list[Part]:
        """All parameters that have state but for those of ``parts``."""
        apart = {entry for part in parts for entry in part.watched}
        others = [entry for entry in self.watched if entry.placement is not None and entry not in apart]
        return self._parts(others) if others else []

    def make_room(self) -> None:
        """Match the state with the parameters' present shapes, devices and dtypes."""
        self.refresh()
        self._make_room([])

    def renewed(self, parts: list[Part]) -> list[Part]:
        """The same parameters where their state is now, with what their last step has left."""
        if all(any(part.bucket is bucket for bucket in self.buckets) for part in parts):
            return parts
        found = self._parts([entry for part in parts for entry in part.watched])
        for name in ("owed", "entered"):
            old = [(part, getattr(part, name)) for part in parts]
            kept = {w: rate for part, rates in old if rates for w, rate in zip(part.watched, rates, strict=True)}
            for part in found:
                setattr(part, name, [kept[entry] for entry in part.watched] if kept else None)
        for part in found:
            part.advanced, part.counted = parts[0].advanced, parts[0].counted
        return found

    def place(self, entries: Sequence[Watched]) -> None:
        """Make or move the state of these parameters to match their present shape, device and dtype.

        Elements without history take the parameter's current value as window start and as anchor.
        """
        known = {name: slot for bucket in self.buckets for name, slot in bucket.slots.items()}
        for entry in entries:
            if entry.name in known and known[entry.name].layout != layout(entry.parameter):
                raise RWalkError(
                    f"{entry.name} is sharded over processes in another way than when its state was made: wrap the "
                    "model before RWalk is made or loaded; to go on in another layout, save() in the first and load() "
                    "in the second"
                )
        remembered = ["window_start"] if self.config.window == "start" else []
        remembered += ["anchor"] if any("anchor" in bucket.flat for bucket in self.buckets) else []
        for entry in entries:
            entry.placement = Placement.of(entry.parameter)
        needed = {entry.name: Placement.of(entry.parameter) for entry in entries}
        self.buckets = rearrange(self.buckets, needed, self.storage)
        self._stepping = ([], [])
        home = {name: bucket for bucket in self.buckets for name in bucket.slots}
        for entry in entries:
            bucket = home[entry.name]
            slot = bucket.slots[entry.name]
            slot.layout = layout(entry.parameter)
            joins = torch.full((), entry.name not in known)
            new = joins if slot.fresh is None else slot.fresh
            for quantity in remembered:
                view = bucket.views(quantity)[entry.name]
                present = local(entry.parameter).detach().to(view)
                view.copy_(torch.where(new.to(view.device), present, view))

    def _check_source(self, name: str, parameter: Tensor) -> None:
        if self.config.fisher_source == "loader" and is_sharded(parameter):
            raise RWalkError(
                f"fisher_source='loader' needs whole parameters, and {name} is sharded over processes: take "
                "fisher_source='step'"
            )

    def _make_room(self, joining: Sequence[Watched]) -> None:
        """Make or move state where it is needed, of all parameters at once: Parts hold on to buckets."""
        seen, changed = {}, []
        for entry in dict.fromkeys([*(entry for entry in self.watched if entry.placement is not None), *joining]):
            parameter = entry.parameter
            now = (parameter.shape, parameter.device, parameter.dtype)
            if now != entry.seen:
                seen[entry] = now
                if entry.placement != Placement.of(parameter):
                    changed.append(entry)
        if changed:
            self.place(changed)
        for entry, now in seen.items():  # once that has succeeded
            entry.seen = now

    def _parts(self, entries: Sequence[Watched]) -> list[Part]:
        parts = [Part(bucket, [entry for entry in entries if entry.name in bucket.slots]) for bucket in self.buckets]
        return [part for part in parts if part.watched]


def _fitting(entry: Watched, gradient: Tensor) -> Tensor:
    """What this process holds of a gradient that is not simply like its parameter."""
    if type(gradient) is not Tensor and layout(gradient) != layout(entry.parameter):
        raise RWalkError(
            f"the gradient of {entry.name} is spread over processes in another way than the parameter: "
            "redistribute() it to the parameter's placements before the optimizer steps"
        )
    gradient = local(gradient)
    _check_gradient(entry.name, local(entry.parameter), gradient)
    return gradient


def _check_gradient(name: str, parameter: Tensor, gradient: Tensor) -> None:
    if gradient.layout is not torch.strided:
        raise RWalkError(
            f"{name} has a {gradient.layout} gradient: RWalk needs dense ones; use sparse=False in its layer, or leave "
            f"it out with exclude=({name!r},)"
        )
    if gradient.is_complex():
        raise RWalkError(f"{name} is complex: RWalk needs real parameters; leave it out with exclude=({name!r},)")
    if gradient.shape != parameter.shape or gradient.device != parameter.device:
        raise RWalkError(
            f"{name} is of shape {tuple(parameter.shape)} on {parameter.device}, its gradient of shape "
            f"{tuple(gradient.shape)} on {gradient.device}: the parameter's data was replaced after backward(); clear "
            "its gradient when you replace it"
        )
