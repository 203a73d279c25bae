"""Flat storage: one tensor per quantity for all parameters that share a device and a dtype.

The mathematics is elementwise, so it never needs to know where one parameter ends and the next begins. Laying the
state out flat turns a step over hundreds of parameters into a handful of operations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from rwalk.core.sharding import layout, local
from rwalk.core.storage import Storage

__all__ = ["Bucket", "Placement", "Slot", "rearrange"]


@dataclass(frozen=True)
class Placement:
    """Where a parameter's state belongs: its shape (this process's shard), on its device, with others of its dtype.

    Attributes:
        layout: How the parameter is sharded; None if it is whole.
    """

    shape: torch.Size
    device: torch.device
    dtype: torch.dtype
    layout: Any = None

    @classmethod
    def of(cls, parameter: Tensor) -> Placement:
        """The placement of a parameter's state."""
        held = local(parameter)
        return cls(held.shape, held.device, held.dtype, layout(parameter))


@dataclass
class Slot:
    """Where a parameter lies in its bucket.

    Attributes:
        name: Canonical parameter name.
        shape: Shape of the parameter.
        start: First element in the flat tensors.
        updates: Fisher updates so far, counted only until the moving average is steady.
        fresh: After growth, the elements (bool, ``shape``) that have seen no gradient; they start their Fisher anew.
        layout: How the parameter is sharded; None if it is whole.
    """

    name: str
    shape: torch.Size
    start: int
    updates: int = 0
    fresh: Tensor | None = field(default=None, repr=False)
    layout: Any = None

    @property
    def stop(self) -> int:
        """One past the last element."""
        return self.start + prod(self.shape)


class Bucket:
    """Flat tensors for parameters of one device and dtype, cut into slots.

    Args:
        device: Where the parameters are.
        parameter_dtype: Theirs. The arithmetic is done in float64 for float64 and in float32 for all else.
        shapes: The parameters, in order, by name.
        storage: How quantities are kept.
    """

    def __init__(
        self,
        device: torch.device,
        parameter_dtype: torch.dtype,
        shapes: dict[str, torch.Size],
        storage: Storage | None = None,
    ) -> None:
        self.device, self.parameter_dtype = device, parameter_dtype
        self.dtype = torch.float64 if parameter_dtype is torch.float64 else torch.float32
        self.storage = storage if storage is not None else Storage()
        self.slots: dict[str, Slot] = {}
        self.size = 0
        for name, shape in shapes.items():
            self.slots[name] = Slot(name, shape, self.size)
            self.size = self.slots[name].stop
        self.flat: dict[str, Tensor] = {}
        self._views: dict[str, dict[str, Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle would give each view memory of its own."""
        return {**vars(self), "_views": {}}

    def require(self, *quantities: str) -> list[Tensor]:
        """The flat tensors of these quantities, made as zeros where they do not exist yet."""
        for quantity in quantities:
            if quantity not in self.flat:
                self.flat[quantity] = self.storage.zeros(quantity, self.size, self.device, self.dtype)
        return [self.flat[quantity] for quantity in quantities]

    def views(self, quantity: str) -> dict[str, Tensor]:
        """The quantity cut into one view per parameter, by name, in the parameters' shapes."""
        if quantity not in self._views:
            flat = self.require(quantity)[0]
            self._views[quantity] = {
                name: flat[slot.start : slot.stop].view(slot.shape) for name, slot in self.slots.items()
            }
        return self._views[quantity]


def rearrange(buckets: Iterable[Bucket], placements: dict[str, Placement], storage: Storage) -> list[Bucket]:
    """Lay the state out anew for parameters that joined, grew, shrank or moved to another device or dtype.

    Args:
        buckets: The present layout. Its parameters keep their place in the order.
        placements: What each parameter needs now. Parameters of ``buckets`` not named here stay as they are.
        storage: How quantities are kept from now on.

    Returns:
        New buckets. Where a shape changed, the block that both shapes contain keeps its state and the rest is zero.
    """
    old = {name: (bucket, slot) for bucket in buckets for name, slot in bucket.slots.items()}
    wanted = {
        name: Placement(slot.shape, bucket.device, bucket.parameter_dtype) for name, (bucket, slot) in old.items()
    }
    wanted.update(placements)
    layout: dict[tuple[torch.device, torch.dtype], dict[str, torch.Size]] = {}
    for name, placement in wanted.items():
        layout.setdefault((placement.device, placement.dtype), {})[name] = placement.shape
    result = [Bucket(device, dtype, shapes, storage) for (device, dtype), shapes in layout.items()]
    for bucket in result:
        for name, slot in bucket.slots.items():
            if name in old:
                _carry_over(*old[name], bucket, slot)
    return result


def _carry_over(source: Bucket, before: Slot, target: Bucket, after: Slot) -> None:
    after.updates, after.layout = before.updates, before.layout
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
        view = target.views(quantity)[after.name]
        view[block] = source.views(quantity)[before.name][block].to(view.device)
