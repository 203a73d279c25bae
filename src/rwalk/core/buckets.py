"""Flat storage: one tensor per quantity for all parameters that share a device and a state dtype.

The mathematics is elementwise, so it never needs to know where one parameter ends and the next begins. Laying the
state out flat turns a step over hundreds of parameters into a handful of operations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

__all__ = ["Bucket", "Placement", "Slot", "rearrange"]


@dataclass(frozen=True)
class Placement:
    """Which state a parameter needs: its shape, on its device, in float64 for float64 and float32 for all else."""

    shape: torch.Size
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, parameter: Tensor) -> Placement:
        """The placement of a parameter's state."""
        dtype = torch.float64 if parameter.dtype is torch.float64 else torch.float32
        return cls(parameter.shape, parameter.device, dtype)


@dataclass
class Slot:
    """Where a parameter lies in its bucket.

    Attributes:
        name: Canonical parameter name.
        shape: Shape of the parameter.
        start: First element in the flat tensors.
        updates: Fisher updates so far, counted only until the moving average is steady.
        fresh: After growth, the elements (bool, ``shape``) that have seen no gradient; they start their Fisher anew.
    """

    name: str
    shape: torch.Size
    start: int
    updates: int = 0
    fresh: Tensor | None = field(default=None, repr=False)

    @property
    def stop(self) -> int:
        """One past the last element."""
        return self.start + prod(self.shape)


class Bucket:
    """Flat tensors of one device and dtype, cut into slots.

    Args:
        device: Where the tensors live.
        dtype: Their dtype.
        shapes: The parameters, in order, by name.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, shapes: dict[str, torch.Size]) -> None:
        self.device, self.dtype = device, dtype
        self.slots: dict[str, Slot] = {}
        self.size = 0
        for name, shape in shapes.items():
            self.slots[name] = Slot(name, shape, self.size)
            self.size = self.slots[name].stop
        self.flat: dict[str, Tensor] = {}
        self._views: dict[str, dict[str, Tensor]] = {}

    def require(self, *quantities: str) -> list[Tensor]:
        """The flat tensors of these quantities, made as zeros where they do not exist yet."""
        for quantity in quantities:
            if quantity not in self.flat:
                self.flat[quantity] = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        return [self.flat[quantity] for quantity in quantities]

    def views(self, quantity: str) -> dict[str, Tensor]:
        """The quantity cut into one view per parameter, by name, in the parameters' shapes."""
        if quantity not in self._views:
            flat = self.require(quantity)[0]
            self._views[quantity] = {
                name: flat[slot.start : slot.stop].view(slot.shape) for name, slot in self.slots.items()
            }
        return self._views[quantity]

    def runs(self, names: Iterable[str]) -> list[slice]:
        """The fewest contiguous stretches of the flat tensors that hold these parameters and nothing else."""
        merged: list[slice] = []
        for slot in sorted((self.slots[name] for name in names), key=lambda slot: slot.start):
            if merged and merged[-1].stop == slot.start:
                merged[-1] = slice(merged[-1].start, slot.stop)
            else:
                merged.append(slice(slot.start, slot.stop))
        return merged


def rearrange(buckets: Iterable[Bucket], placements: dict[str, Placement]) -> list[Bucket]:
    """Lay the state out anew for parameters that joined, grew, shrank or moved to another device or dtype.

    Args:
        buckets: The present layout. Its parameters keep their place in the order.
        placements: What each parameter needs now. Parameters of ``buckets`` not named here stay as they are.

    Returns:
        New buckets. Where a shape changed, the block that both shapes contain keeps its state and the rest is zero.
    """
    old = {name: (bucket, slot) for bucket in buckets for name, slot in bucket.slots.items()}
    wanted = {name: Placement(slot.shape, bucket.device, bucket.dtype) for name, (bucket, slot) in old.items()}
    wanted.update(placements)
    layout: dict[tuple[torch.device, torch.dtype], dict[str, torch.Size]] = {}
    for name, placement in wanted.items():
        layout.setdefault((placement.device, placement.dtype), {})[name] = placement.shape
    result = [Bucket(device, dtype, shapes) for (device, dtype), shapes in layout.items()]
    for bucket in result:
        for name, slot in bucket.slots.items():
            if name in old:
                _carry_over(*old[name], bucket, slot)
    return result


def _carry_over(source: Bucket, before: Slot, target: Bucket, after: Slot) -> None:
    after.updates = before.updates
    after.fresh = None if before.fresh is None else before.fresh.to(target.device)
    block: tuple[slice, ...] = ()
    if before.shape != after.shape:
        after.fresh = torch.ones(after.shape, dtype=torch.bool, device=target.device)
        if len(before.shape) != len(after.shape):
            after.updates = 0
            return
        block = tuple(slice(0, min(sizes)) for sizes in zip(before.shape, after.shape, strict=True))
        after.fresh[block] = False if before.fresh is None else before.fresh.to(target.device)[block]
    for quantity in source.flat:
        target.views(quantity)[after.name][block] = source.views(quantity)[before.name][block].to(target.device)
