"""Parameters that take part in a step together, and the pieces in which eager code goes through them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rwalk.core.buckets import Bucket, Placement, Slot
from rwalk.core.sharding import local

__all__ = ["TILE", "Part", "Tile", "Watched", "tile_size"]

#: Elements that eager code works on at a time: few enough to stay in the cache from one operation to the next.
TILE = 1 << 17
#: On an accelerator every operation is a launch, so tiles only bound the memory of intermediate results.
ACCELERATOR_TILE = 1 << 24


def tile_size(device: torch.device) -> int:
    """Elements in a tile on this device."""
    return TILE if device.type == "cpu" else ACCELERATOR_TILE


@dataclass(eq=False)
class Watched:
    """A parameter that the optimizer moves and the config protects; it gets state with its first gradient."""

    name: str
    parameter: nn.Parameter
    group: int
    placement: Placement | None = None
    seen: tuple[torch.Size, torch.device, torch.dtype] | None = None


@dataclass(eq=False)
class Tile:
    """A stretch of the flat tensors and the pieces of parameters that lie in it.

    Attributes:
        bucket: Whose flat tensors.
        flat: The stretch.
        pieces: For each piece the parameter's index in its ``Part``, its slot, and the piece's first and last element
            counted from the parameter's own first.
    """

    bucket: Bucket
    flat: slice
    pieces: list[tuple[int, Slot, int, int]]
    _views: dict[tuple[int, torch.dtype], list[Tensor]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Elements in it."""
        return int(self.flat.stop - self.flat.start)

    def cut(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The pieces of one contiguous tensor per parameter: whole in their shape, or flat."""
        return [
            tensors[index] if stop - start == slot.stop - slot.start else tensors[index].view(-1)[start:stop]
            for index, slot, start, stop in self.pieces
        ]

    def views(self, quantity: str) -> list[Tensor]:
        """The pieces of a quantity."""
        return self.cut_flat(self.bucket.require(quantity)[0][self.flat])

    def cut_flat(self, flat: Tensor) -> list[Tensor]:
        """The pieces of a tensor that is as long as the tile. Cached: the same memory is cut in every step."""
        key = (flat.data_ptr(), flat.dtype)
        if key not in self._views:
            views, begin = [], 0
            for _, slot, start, stop in self.pieces:
                piece = flat[begin : begin + stop - start]
                views.append(piece.view(slot.shape) if stop - start == slot.stop - slot.start else piece)
                begin += stop - start
            self._views[key] = views  # which keep the memory from being used for something else
        return self._views[key]

    def load(self, quantity: str) -> Tensor:
        """The quantity for arithmetic: itself, or a copy where it is kept in another dtype or place."""
        return self.bucket.require(quantity)[0][self.flat].to(self.bucket.device, self.bucket.dtype)


@dataclass(eq=False)
class Part:
    """Parameters of one bucket that take part in an operation together.

    Attributes:
        bucket: Holds their state.
        watched: The parameters.
        gradients: Their gradients, contiguous, while they are read.
        staged: Gradients of another layout: what the optimizer reads, and the copy worked on.
        owed: For each parameter the weight with which the square of the kept gradient has yet to enter the Fisher;
            None if it is in.
        entered: The same of the gradient whose square has entered it last, while that may have to be taken back.
        advanced: Whether this step's gradient is accounted for.
        counted: Whether this step was counted among the slots' updates.
        steady: The weights of new squared gradients, once they stay as they are.
        prepared: What a backend keeps from step to step.
    """

    bucket: Bucket
    watched: list[Watched]
    gradients: list[Tensor] = field(default_factory=list)
    staged: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    owed: list[float] | None = None
    entered: list[float] | None = None
    advanced: bool = False
    counted: bool = False
    steady: list[float] | None = None
    prepared: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """What is laid out for quick use points to memory that a copy has elsewhere."""
        kept = ("bucket", "watched", "owed", "entered", "advanced", "counted")
        return {**vars(Part(self.bucket, self.watched)), **{name: getattr(self, name) for name in kept}}

    @cached_property
    def slots(self) -> list[Slot]:
        """Where each lies, in order."""
        return [self.bucket.slots[entry.name] for entry in self.watched]

    @cached_property
    def extents(self) -> tuple[array[int], array[int], int]:
        """First element in the flat tensors and number of elements, of each parameter, and the number of all."""
        sizes = array("q", [slot.stop - slot.start for slot in self.slots])
        return array("q", [slot.start for slot in self.slots]), sizes, sum(sizes)

    @property
    def elements(self) -> int:
        """Elements of all its parameters."""
        return self.extents[2]

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters' values (of this process's shards); contiguous, so a copy where they are not."""
        return [local(entry.parameter).contiguous() for entry in self.watched]

    @cached_property
    def tiles(self) -> list[Tile]:
        """Stretches of at most ``tile_size`` elements that hold these parameters and nothing else."""
        tiles: list[Tile] = []
        limit = tile_size(self.bucket.device)
        for index, slot in sorted(enumerate(self.slots), key=lambda pair: pair[1].start):
            begin = slot.start
            while begin < slot.stop:
                last = tiles[-1] if tiles else None
                if last is None or last.flat.stop != begin or last.size == limit:
                    last = Tile(self.bucket, slice(begin, begin), [])
                    tiles.append(last)
                end = min(slot.stop, last.flat.start + limit)
                last.pieces.append((index, slot, begin - slot.start, end - slot.start))
                last.flat = slice(last.flat.start, end)
                begin = end
        return tiles

    def grouped(self, weights: Mapping[Watched, float]) -> dict[float, Part]:
        """The parameters of each weight apart; itself, if all have the same."""
        kinds = sorted({weights[entry] for entry in self.watched})
        if len(kinds) == 1:
            return {kinds[0]: self}
        return {kind: Part(self.bucket, [w for w in self.watched if weights[w] == kind]) for kind in kinds}

    def views(self, quantity: str) -> list[Tensor]:
        """The quantity's view for each parameter, in order."""
        views = self.bucket.views(quantity)
        return [views[slot.name] for slot in self.slots]

    def gather(self, quantity: str, tensors: Sequence[Tensor]) -> None:
        """Copy one tensor per parameter into the quantity, casting to its dtype."""
        torch._foreach_copy_(self.views(quantity), list(tensors))

    def zero(self, quantity: str) -> None:
        """Fill the quantity with zeros."""
        torch._foreach_zero_(self.views(quantity))

    def take(self, gradients: Sequence[Tensor]) -> None:
        """Hold this step's gradients, laid out as the parameters' state is."""
        self.gradients, self.staged = list(gradients), []
        for index, gradient in enumerate(self.gradients):
            if not gradient.is_contiguous():
                self.gradients[index] = gradient.contiguous()
                self.staged.append((gradient, self.gradients[index]))

    @property
    def mixed(self) -> bool:
        """Whether a gradient is of another dtype than its parameter (``Tensor.grad_dtype``)."""
        dtype = self.bucket.parameter_dtype
        return any(gradient.dtype is not dtype for gradient in self.gradients)

    def release(self) -> None:
        """Let go of the gradients, so that ``zero_grad`` frees them."""
        self.gradients, self.staged = [], []

    def give_back(self) -> None:
        """Bring changes of staged gradients to where the optimizer reads them."""
        for original, copy in self.staged:
            original.copy_(copy)
