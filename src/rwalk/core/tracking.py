"""Which parameters are in play: the model's names, the optimizer's groups and the flat state, held together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rwalk.core.buckets import Bucket, Placement, rearrange
from rwalk.core.config import RWalkConfig
from rwalk.core.naming import selected_parameters
from rwalk.errors import RWalkError

__all__ = ["Part", "Tracker"]


@dataclass(eq=False)
class Watched:
    """A parameter that the optimizer moves and the config protects; it gets state with its first gradient."""

    name: str
    parameter: nn.Parameter
    group: int
    placement: Placement | None = None
    seen: tuple[torch.Size, torch.device, torch.dtype] | None = None


@dataclass(eq=False)
class Part:
    """Parameters of one bucket that take part in an operation together."""

    bucket: Bucket
    watched: list[Watched]
    gradients: list[Tensor] = field(default_factory=list)
    _runs: list[slice] | None = None

    @property
    def names(self) -> list[str]:
        """Canonical names, in order."""
        return [entry.name for entry in self.watched]

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters' values, outside autograd."""
        return [entry.parameter.detach() for entry in self.watched]

    @property
    def runs(self) -> list[slice]:
        """The stretches of the bucket's flat tensors that they occupy."""
        if self._runs is None:
            whole = len(self.watched) == len(self.bucket.slots)
            self._runs = [slice(0, self.bucket.size)] if whole else self.bucket.runs(self.names)
        return self._runs

    def views(self, quantity: str) -> list[Tensor]:
        """The quantity's view for each parameter, in order."""
        views = self.bucket.views(quantity)
        return [views[entry.name] for entry in self.watched]

    def gather(self, quantity: str, tensors: Sequence[Tensor]) -> None:
        """Copy one tensor per parameter into the quantity, casting to the state's dtype."""
        torch._foreach_copy_(self.views(quantity), list(tensors))

    def by_group(self) -> dict[int, Part]:
        """Cut into parts of one optimizer group each."""
        groups: dict[int, Part] = {}
        for entry in self.watched:
            groups.setdefault(entry.group, Part(self.bucket, [])).watched.append(entry)
        return groups


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
        self._signature: list[list[int]] = []
        self.refresh()
        if not self.watched:
            raise RWalkError(
                f"the optimizer ({type(optimizer).__name__}) holds none of the parameters of {type(model).__name__} "
                f"that include={config.include!r}, exclude={config.exclude!r} select: "
                "build it from model.parameters(), or widen the patterns"
            )

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
        if any(group.get("maximize") for group in groups):
            raise RWalkError(
                "the optimizer has maximize=True: RWalk scores a loss that falls; minimise its negative instead"
            )
        group_of = {id(p): index for index, group in enumerate(groups) for p in group["params"]}
        known = {entry.name: entry for entry in self.watched}
        self.watched = []
        for name, parameter in selected_parameters(self.model, self.config).items():
            if id(parameter) in group_of:
                entry = known.get(name) or Watched(name, parameter, 0)
                entry.parameter, entry.group, entry.seen = parameter, group_of[id(parameter)], None
                self.watched.append(entry)
        self._signature = signature

    def stepping(self) -> list[Part]:
        """The parameters that have a gradient now, with state made for those that had none."""
        self.refresh()
        entries, gradients = [], []
        for entry in self.watched:
            gradient = entry.parameter.grad
            if gradient is not None and gradient.numel():
                if gradient.layout is not torch.strided:
                    raise RWalkError(
                        f"{entry.name} has a {gradient.layout} gradient: RWalk needs dense ones; use sparse=False in "
                        f"its layer, or leave it out with exclude=({entry.name!r},)"
                    )
                if gradient.is_complex():
                    raise RWalkError(
                        f"{entry.name} is complex: RWalk needs real parameters; leave it out with "
                        f"exclude=({entry.name!r},)"
                    )
                entries.append(entry)
                gradients.append(gradient)
        self._make_room(entries)
        return self._parts(entries, gradients)

    def resident(self) -> list[Part]:
        """All parameters that have state, in their present shape."""
        self.refresh()
        self._make_room([])
        return self._parts([entry for entry in self.watched if entry.placement is not None], None)

    def place(self, entries: Sequence[Watched]) -> None:
        """Make or move the state of these parameters to match their present shape, device and dtype.

        Elements without history take the parameter's current value as window start and as anchor.
        """
        known = {name for bucket in self.buckets for name in bucket.slots}
        anchored = any("anchor" in bucket.flat for bucket in self.buckets)
        for entry in entries:
            entry.placement = Placement.of(entry.parameter)
        self.buckets = rearrange(self.buckets, {entry.name: Placement.of(entry.parameter) for entry in entries})
        home = {name: bucket for bucket in self.buckets for name in bucket.slots}
        for entry in entries:
            bucket = home[entry.name]
            slot = bucket.slots[entry.name]
            joins = torch.full((), entry.name not in known, device=bucket.device)
            new = joins if slot.fresh is None else slot.fresh
            for quantity in ("window_start", "anchor") if anchored else ("window_start",):
                view = bucket.views(quantity)[entry.name]
                view.copy_(torch.where(new, entry.parameter.detach().to(view.dtype), view))

    def _make_room(self, joining: Sequence[Watched]) -> None:
        """Make or move state where it is needed, of all parameters at once: Parts hold on to buckets."""
        changed = []
        for entry in dict.fromkeys([*(entry for entry in self.watched if entry.placement is not None), *joining]):
            parameter = entry.parameter
            seen = (parameter.shape, parameter.device, parameter.dtype)
            if seen != entry.seen:
                entry.seen = seen
                if entry.placement != Placement.of(parameter):
                    changed.append(entry)
        if changed:
            self.place(changed)

    def _parts(self, entries: Sequence[Watched], gradients: Sequence[Tensor] | None) -> list[Part]:
        parts = []
        for bucket in self.buckets:
            here = [index for index, entry in enumerate(entries) if entry.name in bucket.slots]
            if here:
                chosen = [] if gradients is None else [gradients[index] for index in here]
                parts.append(Part(bucket, [entries[index] for index in here], chosen))
        return parts
