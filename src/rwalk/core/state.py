"""Where RWalk's state lies: one flat tensor per quantity for all parameters that share a device and a dtype.

The mathematics is elementwise, so it never needs to know where one parameter ends and the next begins. A bucket holds
``fisher`` and ``score``; of the pending step ``gradient`` (of the plain loss, unscaled) and ``before`` (the weights it
was taken at); of the open window ``loss_change`` and ``window_start`` (in compact state ``displacement``), none of them
where every step is a window; after the first task ``importance`` and ``anchor``. Where settings ask for them,
``task_score`` (this task's, apart from the averaged one), ``window_fisher`` (as the window began) and ``average`` (of
the weights that this task's steps led to).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from rwalk.core.sharding import ORDINARY, layout, local

__all__ = [
    "Bucket",
    "Cohort",
    "Keeping",
    "Placement",
    "Settling",
    "Tracked",
    "arithmetic",
    "arrange",
    "joined",
    "keepings_of",
    "unstage",
]

#: What tolerates bfloat16: sums and averages (rounded at random, so that small terms are not lost), the pending
#: gradient and the penalty's importances. Weights, which are subtracted from each other, do not.
TOLERANT = frozenset(
    ("fisher", "loss_change", "score", "task_score", "window_fisher", "displacement", "gradient", "importance")
)
#: Large tensors begin at the start of a page, and elements of equal index would compete for the same few lines of the
#: first-level cache; so each quantity begins some bytes further on than the one before.
STAGGER = 256
ORDER = (
    *("gradient", "before", "importance", "anchor", "fisher", "loss_change", "window_start", "score", "displacement"),
    *("task_score", "window_fisher", "average"),
)


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which the equations are computed for parameters of a dtype."""
    return torch.float64 if dtype is torch.float64 else torch.float32


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


@dataclass(eq=False)
class Tracked:
    """A parameter of the model that is protected.

    Attributes:
        name: Canonical name.
        parameter: The parameter.
        group: Of the optimizer; None while the optimizer does not move it.
        placement: Where its state belongs; None before its first gradient.
        seen: Shape, device and dtype for which the placement was found.
        updates: Fisher updates so far, counted only until the moving average is steady.
        last_task: The task (from 0) in which it last had a step that counted; None if it never had one.
        fresh: After growth, the elements (bool) that have seen no gradient; they start their Fisher anew.
        left_at: Its weights when it left the optimizer in a window in which it had moved; None if it is there.
        held: Its weights as the step began, before it has state of its own.
        averaged: Iterates in its ``average``.
        grew: Whether it has become larger since the last task ended.
    """

    name: str
    parameter: nn.Parameter
    group: int | None = None
    placement: Placement | None = None
    seen: tuple[torch.Size, torch.device, torch.dtype] | None = None
    updates: int = 0
    last_task: int | None = None
    fresh: Tensor | None = field(default=None, repr=False)
    left_at: Tensor | None = field(default=None, repr=False)
    held: Tensor | None = field(default=None, repr=False)
    averaged: int = 0
    grew: bool = False

    @property
    def weights(self) -> Tensor:
        """What counts as its weights: this process's shard; where it left the optimizer, those that it left with."""
        return local(self.parameter).detach() if self.left_at is None else self.left_at


class Bucket:
    """Flat tensors for parameters of one device and dtype.

    Args:
        device: Where the parameters are.
        parameter_dtype: Theirs. The arithmetic is done in float64 for float64 and in float32 for all else.
        shapes: The parameters, in order.
        compact: Keep in bfloat16 what tolerates it.

    Attributes:
        backend: What runs the step here, once that is known.
        room: Memory to work in, for a backend that needs some.
    """

    def __init__(
        self,
        device: torch.device,
        parameter_dtype: torch.dtype,
        shapes: Mapping[Tracked, torch.Size],
        *,
        compact: bool = False,
    ) -> None:
        self.device, self.parameter_dtype = device, parameter_dtype
        self.dtype = arithmetic(parameter_dtype)
        self.compact = compact and self.dtype is torch.float32
        self.shapes = dict(shapes)
        self.starts: dict[Tracked, int] = {}
        self.size = 0
        for entry, shape in self.shapes.items():
            self.starts[entry] = self.size
            self.size += prod(shape)
        self.flat: dict[str, Tensor] = {}
        self.backend: str | None = None
        self.room: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Another machine may have other backends."""
        return {**vars(self), "backend": None, "room": None}

    def require(self, *quantities: str) -> list[Tensor]:
        """The flat tensors of these quantities, made as zeros where they do not exist yet."""
        for quantity in quantities:
            if quantity not in self.flat:
                self.flat[quantity] = self._zeros(quantity)
        return [self.flat[quantity] for quantity in quantities]

    def reserve(self, quantities: Iterable[str]) -> None:
        """Memory for these quantities, for whoever writes all of it."""
        for quantity in quantities:
            if quantity not in self.flat:
                self.flat[quantity] = self._memory(quantity)

    def view(self, entry: Tracked, quantity: str) -> Tensor:
        """A quantity of one parameter, in the parameter's shape."""
        start, shape = self.starts[entry], self.shapes[entry]
        return self.require(quantity)[0][start : start + prod(shape)].view(shape)

    def _zeros(self, quantity: str) -> Tensor:
        return self._memory(quantity, torch.zeros)

    def _memory(self, quantity: str, made: Callable[..., Tensor] = torch.empty) -> Tensor:
        kept = torch.bfloat16 if self.compact and quantity in TOLERANT else self.dtype
        skipped = STAGGER * ORDER.index(quantity) // kept.itemsize if self.device.type == "cpu" else 0
        with torch.inference_mode(False):  # what is made in that mode may not be written to outside of it
            return made(skipped + self.size, dtype=kept, device=self.device)[skipped:]


def arrange(buckets: Iterable[Bucket], needed: Mapping[Tracked, Placement], *, compact: bool) -> list[Bucket]:
    """Buckets for these parameters, with all that the old ones hold of them.

    Args:
        buckets: The old ones, which stay as they are.
        needed: The parameters that are to have state, in order, and where.
        compact: Keep in bfloat16 what tolerates it.

    Returns:
        New buckets. Where a shape changed, the block that both shapes contain keeps its state and the rest is zero.
    """
    old = {entry: bucket for bucket in buckets for entry in bucket.starts}
    layouts: dict[tuple[torch.device, torch.dtype], dict[Tracked, torch.Size]] = {}
    for entry, placement in needed.items():
        layouts.setdefault((placement.device, placement.dtype), {})[entry] = placement.shape
    result = [Bucket(device, dtype, shapes, compact=compact) for (device, dtype), shapes in layouts.items()]
    for bucket in result:
        for entry, shape in bucket.shapes.items():
            if entry in old:
                _carry_over(old[entry], bucket, entry, shape)
    return result


def joined(before: torch.Size, shape: torch.Size) -> Tensor:
    """Which elements (bool) a parameter of another shape has that it had not before."""
    new = torch.ones(shape, dtype=torch.bool)
    if len(before) == len(shape):
        new[_common(before, shape)] = False
    return new


def _common(before: torch.Size, shape: torch.Size) -> tuple[slice, ...]:
    return tuple(slice(0, min(sizes)) for sizes in zip(before, shape, strict=True))


def _carry_over(source: Bucket, target: Bucket, entry: Tracked, shape: torch.Size) -> None:
    before = source.shapes[entry]
    block: tuple[slice, ...] = ()
    if before != shape:
        entry.grew, entry.averaged = prod(shape) > prod(before), 0
        if len(before) != len(shape):
            entry.updates, entry.fresh = 0, torch.ones(shape, dtype=torch.bool, device=target.device)
            return
        block = _common(before, shape)
        fresh = joined(before, shape).to(target.device)
        if entry.fresh is not None:
            fresh[block] = entry.fresh.to(target.device)[block]
        entry.fresh = fresh
    elif entry.fresh is not None:
        entry.fresh = entry.fresh.to(target.device)
    for quantity in source.flat:
        view = target.view(entry, quantity)
        view[block] = source.view(entry, quantity)[block].to(view.device)


class Cohort:
    """Parameters of one bucket that take part in an operation together.

    Args:
        bucket: Holds their state.
        entries: The parameters.

    Attributes:
        offsets: The first element of each in the flat tensors.
        sizes: How many elements each has.
        sharded: Whether processes hold shards of them.
        prepared: What a backend keeps from step to step.
    """

    def __init__(self, bucket: Bucket, entries: Sequence[Tracked]) -> None:
        self.bucket, self.entries = bucket, list(entries)
        self.offsets = array("q", [bucket.starts[entry] for entry in self.entries])
        self.sizes = array("q", [prod(bucket.shapes[entry]) for entry in self.entries])
        self.sharded = any(entry.placement is not None and entry.placement.layout is not None for entry in entries)
        self.prepared: dict[str, Any] = {}
        self._views: dict[str, list[Tensor]] = {}

    @cached_property
    def elements(self) -> int:
        """Elements of all its parameters."""
        return sum(self.sizes)

    def weights(self) -> list[Tensor]:
        """The parameters' weights, one contiguous tensor each; a copy where they are not."""
        found = []
        for entry in self.entries:
            plain = entry.left_at is None and type(entry.parameter) in ORDINARY
            weights = entry.parameter if plain else entry.weights
            found.append(weights if weights.is_contiguous() else weights.contiguous())
        return found

    def views(self, quantity: str) -> list[Tensor]:
        """The quantity of each parameter, in its shape."""
        if quantity not in self._views:
            self._views[quantity] = [self.bucket.view(entry, quantity) for entry in self.entries]
        return self._views[quantity]

    def gather(self, quantity: str, tensors: Sequence[Tensor]) -> None:
        """Copy one tensor per parameter into the quantity, casting to its dtype."""
        torch._foreach_copy_(self.views(quantity), list(tensors))

    def grouped(self, weights: Mapping[Tracked, float]) -> dict[float, Cohort]:
        """The parameters of each weight apart."""
        kinds = sorted({weights[entry] for entry in self.entries})
        return {kind: Cohort(self.bucket, [e for e in self.entries if weights[e] == kind]) for kind in kinds}


@dataclass(frozen=True)
class Settling:
    """What is to be brought into the state.

    Attributes:
        pends: There is a step to settle: its gradient and weights are kept.
        rates: For each parameter the weight of its squared gradient in the Fisher; None leaves the Fisher as it is.
        closes: The window ends here: it is scored, and the next one begins where the weights are now.
        damping: What the score's denominator is damped by.
        number: Of the step, the seed of random rounding.
    """

    pends: bool
    rates: Sequence[float] | None
    closes: bool
    damping: float
    number: int


@dataclass(frozen=True)
class Keeping:
    """What is kept of the step that is about to be taken.

    Attributes:
        gradients: One contiguous tensor per parameter, as the optimizer will see them.
        weights: Keep the weights too; else they were kept as the step began.
        scale: The factor by which the gradients are still scaled; None if they are not.
        penalised: Whether the penalty's gradient is added to them.
        staged: Gradients of another layout, and the contiguous copies that are worked on.
    """

    gradients: Sequence[Tensor]
    weights: bool = True
    scale: Tensor | float | None = None
    penalised: bool = False
    staged: Sequence[tuple[Tensor, Tensor]] = ()


def keepings_of(
    cohorts: Sequence[Cohort], entries: list[Tracked], gradients: list[Tensor], **how: Any
) -> list[Keeping]:
    """What is kept of a step, by cohort: the gradients laid out as the state is. All that is staged is in the first."""
    listed, staged = list(gradients), []
    for index, gradient in enumerate(gradients):
        if not gradient.is_contiguous():
            listed[index] = gradient.contiguous()
            staged.append((gradient, listed[index]))
    if len(cohorts) == 1:
        return [Keeping(listed, staged=staged, **how)]
    of = dict(zip(entries, listed, strict=True))
    return [
        Keeping([of[e] for e in cohort.entries], staged=() if index else staged, **how)
        for index, cohort in enumerate(cohorts)
    ]


def unstage(keepings: Sequence[Keeping]) -> None:
    """Bring penalised copies of gradients back to where the optimizer reads them."""
    for keeping in keepings:
        for original, copy in keeping.staged if keeping.penalised else ():
            original.copy_(copy)
