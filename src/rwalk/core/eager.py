"""The step in torch's own operations: on any device, for any dtype, in stretches that stay in the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rwalk.core import equations as F
from rwalk.core.config import RWalkConfig
from rwalk.core.sharding import local
from rwalk.core.state import Bucket, Cohort, Keeping, Settling

__all__ = ["TILE", "Eager", "Tile", "largest_gradient", "store", "tile_size"]

#: Elements worked on at a time: few enough to stay in the cache from one operation to the next.
TILE = 1 << 18
#: On an accelerator every operation is a launch, so tiles only bound the memory of intermediate results.
ACCELERATOR_TILE = 1 << 24

SEEDS = {"fisher": 0, "score": 1, "task_score": 1, "loss_change": 2, "displacement": 3}


def tile_size(device: torch.device) -> int:
    """Elements in a tile on this device."""
    return TILE if device.type == "cpu" else ACCELERATOR_TILE


def largest_gradient(dtype: torch.dtype) -> float:
    """The largest absolute value of a gradient whose square is finite in a dtype."""
    return math.sqrt(torch.finfo(dtype).max) * (1.0 - torch.finfo(dtype).eps)


class Eager:
    """Runs the equations as they stand in ``equations``, tile by tile."""

    name = "eager"

    def step(
        self, cohort: Cohort, config: RWalkConfig, settling: Settling | None, keeping: Keeping | None
    ) -> Tensor | bool:
        """Bring the pending step into the state, then keep the one that is about to be taken.

        Args:
            cohort: Whose.
            config: For the window's kind and the score's settings.
            settling: What is to be brought in, the weights being where it led; None if nothing is.
            keeping: What is kept, penalty included; None if nothing is.

        Returns:
            Whether a kept gradient, or its square, is not finite. On another device than the CPU a tensor.
        """
        weights = cohort.weights()
        extremes: list[Tensor] = []
        for tile in tiles(cohort):
            if settling is not None:
                _settle(tile, config, settling, weights)
            if keeping is not None:
                _keep(tile, config, keeping, weights)
                extremes.extend(torch.aminmax(tile.flat("gradient")))
        if not extremes:
            return False
        limit = largest_gradient(cohort.bucket.dtype)  # NaN is not below it
        if cohort.bucket.device.type != "cpu":
            return ~(torch.stack(extremes).abs() <= limit).all()
        return any(not abs(x.item()) <= limit for x in extremes if type(x) is Tensor)  # a fake one knows nothing

    def distance(self, cohort: Cohort, config: RWalkConfig) -> Tensor:
        """The window's distance, summed over these parameters: a scalar tensor."""
        weights = cohort.weights()
        sums = [_distance(tile, config, _moved(tile, config, weights)).sum() for tile in tiles(cohort)]
        return torch.stack(sums).sum() if sums else torch.zeros(())

    def pull(
        self, cohort: Cohort, config: RWalkConfig, rates: Sequence[float | Tensor], void: Tensor | None = None
    ) -> None:
        """Take the penalty's proximal step on the weights.

        Args:
            cohort: Whose.
            config: For the strength.
            rates: The parameters' learning rates.
            void: One element; if it is not 0, nothing moves. It is not waited for.
        """
        if void is not None:
            goes = void.reshape(()) == 0
            there = {id(rate): rate * goes for rate in rates}
            rates = [there[id(rate)] for rate in rates]
        weights = cohort.weights()
        for tile in tiles(cohort):
            pulled, importance, anchor = room(tile), tile.load("importance"), tile.flat("anchor")
            torch._foreach_copy_(tile.cut_flat(pulled), tile.cut(weights))
            for piece, rate in tile.by_rate(rates):
                theta = pulled[piece]
                theta.copy_(F.proximal_step(importance[piece], theta, anchor[piece], config.strength, rate))
            torch._foreach_copy_(tile.cut(weights), tile.cut_flat(pulled))
        for entry, moved in zip(cohort.entries, weights, strict=True):
            if moved is not local(entry.parameter):
                local(entry.parameter).copy_(moved)


@dataclass(eq=False)
class Tile:
    """A stretch of the flat tensors and the pieces of parameters that lie in it.

    Attributes:
        bucket: Whose flat tensors.
        stretch: Which part of them.
        pieces: For each piece the parameter's index in its cohort, its shape if it is all of the parameter, and its
            first and last element counted from the parameter's own first.
    """

    bucket: Bucket
    stretch: slice
    pieces: list[tuple[int, torch.Size | None, int, int]]
    _views: dict[str, list[Tensor]] = field(default_factory=dict)
    _flat: dict[str, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Elements in it."""
        return int(self.stretch.stop - self.stretch.start)

    def flat(self, quantity: str) -> Tensor:
        """A quantity as it is kept."""
        if quantity not in self._flat:
            self._flat[quantity] = self.bucket.require(quantity)[0][self.stretch]
        return self._flat[quantity]

    def load(self, quantity: str) -> Tensor:
        """A quantity for arithmetic: itself, or a copy where it is kept in another dtype."""
        return self.flat(quantity).to(self.bucket.dtype)

    def views(self, quantity: str) -> list[Tensor]:
        """The pieces of a quantity."""
        if quantity not in self._views:
            self._views[quantity] = self.cut_flat(self.flat(quantity))
        return self._views[quantity]

    def cut(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The pieces of one contiguous tensor per parameter: whole in their shape, or flat."""
        return [
            tensors[index] if shape is not None else tensors[index].view(-1)[start:stop]
            for index, shape, start, stop in self.pieces
        ]

    def cut_flat(self, flat: Tensor) -> list[Tensor]:
        """The pieces of a tensor that is as long as the tile."""
        views, begin = [], 0
        for _, shape, start, stop in self.pieces:
            piece = flat[begin : begin + stop - start]
            views.append(piece if shape is None else piece.view(shape))
            begin += stop - start
        return views

    def by_rate(self, rates: Sequence[float | Tensor]) -> Iterator[tuple[slice, Any]]:
        """Stretches of the tile with one rate each."""
        begin = end = 0
        last: float | Tensor | None = None
        for index, _, start, stop in self.pieces:
            rate = rates[index]
            if last is not None and rate is not last and (isinstance(rate, Tensor) or rate != last):
                yield slice(begin, end), last
                begin = end
            last, end = rate, end + stop - start
        if last is not None:
            yield slice(begin, end), last


def room(tile: Tile) -> Tensor:
    """Memory to work in, as long as the tile."""
    bucket = tile.bucket
    if bucket.room is None:
        bucket.room = torch.empty(min(tile_size(bucket.device), bucket.size), dtype=bucket.dtype, device=bucket.device)
    return bucket.room[: tile.size]


def tiles(cohort: Cohort) -> list[Tile]:
    """Stretches of at most ``tile_size`` elements that hold a cohort's parameters and nothing else; cut once."""
    if "tiles" not in cohort.prepared:
        cohort.prepared["tiles"] = _cut(cohort)
    found: list[Tile] = cohort.prepared["tiles"]
    return found


def _cut(cohort: Cohort) -> list[Tile]:
    found: list[Tile] = []
    limit = tile_size(cohort.bucket.device)
    order = sorted(zip(cohort.offsets, cohort.sizes, range(len(cohort.entries)), strict=True))
    for first, size, index in order:
        begin = first
        while begin < first + size:
            last = found[-1] if found else None
            if last is None or last.stretch.stop != begin or last.size == limit:
                last = Tile(cohort.bucket, slice(begin, begin), [])
                found.append(last)
            end = min(first + size, last.stretch.start + limit)
            whole = cohort.bucket.shapes[cohort.entries[index]] if end - begin == size else None
            last.pieces.append((index, whole, begin - first, end - first))
            last.stretch = slice(last.stretch.start, end)
            begin = end
    return found


def _settle(tile: Tile, config: RWalkConfig, settling: Settling, weights: Sequence[Tensor]) -> None:
    if settling.pends:
        gradient = tile.load("gradient")
        torch._foreach_sub_(tile.views("before"), tile.cut(weights))
        decrease = _led(tile.flat("before"))  # θ(t) − θ(t+1), where the step really led
        if settling.rates is not None:
            fisher = tile.load("fisher")
            for piece, rate in tile.by_rate(settling.rates):
                F.fisher_ema(fisher[piece], gradient[piece], rate, out=fisher[piece])
            store(tile, "fisher", fisher, settling.number)
        if config.window == "step":
            _add_score(tile, config, settling, torch.mul(gradient, decrease, out=room(tile)), decrease)
            return
        change = tile.load("loss_change")
        store(tile, "loss_change", F.loss_change(change, gradient, decrease, out=change), settling.number)
        if config.window == "displaced":
            store(tile, "displacement", tile.load("displacement").add_(decrease), settling.number)
    if settling.closes and config.window != "step":
        _add_score(tile, config, settling, tile.load("loss_change"), _moved(tile, config, weights))
        tile.flat("loss_change").zero_()
        if config.window == "start":
            torch._foreach_copy_(tile.views("window_start"), tile.cut(weights))
        else:
            tile.flat("displacement").zero_()
        if config.fisher_in_score == "window_start":
            tile.flat("window_fisher").copy_(tile.flat("fisher"))


def _moved(tile: Tile, config: RWalkConfig, weights: Sequence[Tensor]) -> Tensor:
    """θ(window's start) − θ."""
    if config.window == "displaced":
        return room(tile).copy_(tile.flat("displacement"))
    moved = room(tile).copy_(tile.flat("window_start"))
    torch._foreach_sub_(tile.cut_flat(moved), tile.cut(weights))
    return _led(moved)


def _led(moved: Tensor) -> Tensor:
    """A weight that is not finite is nowhere, and no step has led there."""
    return moved.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def _distance(tile: Tile, config: RWalkConfig, moved: Tensor) -> Tensor:
    """½F·Δθ², in the memory of Δθ."""
    fisher = None
    if config.distance != "euclidean":
        fisher = tile.load("window_fisher" if config.fisher_in_score == "window_start" else "fisher")
    return F.riemannian_distance(fisher, moved, config.distance_factor, out=moved)


def _add_score(tile: Tile, config: RWalkConfig, settling: Settling, change: Tensor, moved: Tensor) -> None:
    """Score a window, s + ΔL / (½F·Δθ² + ε). Uses Δθ up."""
    distance = _distance(tile, config, moved)
    gained = F.path_score(change, distance, settling.damping, out=distance)
    if config.rectify == "window":
        gained.clamp_(min=0.0)
    store(tile, config.scored, tile.load(config.scored).add_(gained), settling.number)


def _keep(tile: Tile, config: RWalkConfig, keeping: Keeping, weights: Sequence[Tensor]) -> None:
    gradients = tile.cut(keeping.gradients)
    if keeping.scale is None:
        torch._foreach_copy_(tile.views("gradient"), gradients)
    else:
        plain = room(tile)
        torch._foreach_copy_(tile.cut_flat(plain), gradients)
        tile.flat("gradient").copy_(plain.div_(keeping.scale))
    if keeping.weights:
        torch._foreach_copy_(tile.views("before"), tile.cut(weights))
    if keeping.penalised:
        importance, before, anchor = tile.load("importance"), tile.flat("before"), tile.flat("anchor")
        pull = F.penalty_gradient(importance, before, anchor, config.strength, out=room(tile))
        if keeping.scale is not None:
            pull.mul_(keeping.scale)
        torch._foreach_add_(gradients, tile.cut_flat(pull))


def store(tile: Tile, quantity: str, value: Tensor, number: int) -> None:
    """Write a tile of a quantity that sums up over steps.

    To bfloat16 it is rounded up or down at random, in proportion to how near both neighbours are: the mean over steps
    is then right, while rounding to nearest would lose every term below 1/256 of the sum.

    Args:
        tile: Where.
        quantity: Which.
        value: float32 or float64; the quantity itself where it is kept so. Used up.
        number: Of the step, the seed.
    """
    kept = tile.flat(quantity)
    if kept.dtype is value.dtype:
        return
    lost = value.isnan()  # whose bits plus noise may be a number's
    value.view(torch.int32).add_(_noise(tile, number * 4 + SEEDS[quantity])).bitwise_and_(-(1 << 16))
    kept.copy_(value.masked_fill_(lost, math.nan))


def _noise(tile: Tile, seed: int) -> Tensor:
    """16 random bits for each element, the same in every process and in the fused kernels."""
    x = torch.arange(tile.size, dtype=torch.int32, device=tile.bucket.device)
    x.add_(_signed(tile.stretch.start)).mul_(_signed(0x9E3779B1)).bitwise_xor_(_signed(seed))
    x.bitwise_xor_(_shifted(x, 16)).mul_(_signed(0x85EBCA6B))
    x.bitwise_xor_(_shifted(x, 13)).mul_(_signed(0xC2B2AE35))
    return x.bitwise_xor_(_shifted(x, 16)).bitwise_and_(0xFFFF)


def _signed(number: int) -> int:
    """The number modulo 2³² that an int32 with the same bits is."""
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """To the right, with zeros coming in from the left."""
    return (x >> bits).bitwise_and_((1 << (32 - bits)) - 1)
