"""Writing a result back where its quantity is kept in another dtype or place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rwalk.core.parts import Tile

__all__ = ["store"]

SEEDS = {"fisher": 0, "score": 1, "task_score": 1, "loss_change": 2, "displacement": 3}


def store(tile: Tile, quantity: str, value: Tensor, step: int) -> None:
    """Write a tile of a quantity that sums up over steps.

    To bfloat16 it is rounded up or down at random, in proportion to how near both neighbours are: the mean over steps
    is then right, while rounding to nearest would lose every term below 1/256 of the sum.

    Args:
        tile: Where.
        quantity: Which.
        value: float32 or float64; the quantity itself where it is kept so. Used up.
        step: Number of the step, the seed.
    """
    kept = tile.bucket.flat[quantity][tile.flat]
    if kept.data_ptr() == value.data_ptr():
        return
    if kept.dtype is torch.bfloat16:
        lost = value.isnan()  # whose bits plus noise may be a number's
        value.view(torch.int32).add_(_noise(tile, step * 4 + SEEDS[quantity])).bitwise_and_(-(1 << 16))
        value.masked_fill_(lost, math.nan)
    kept.copy_(value)


def _noise(tile: Tile, seed: int) -> Tensor:
    """16 random bits for each element, the same in every process and in the fused kernels."""
    x = torch.arange(tile.size, dtype=torch.int32, device=tile.bucket.device)
    x.add_(_signed(tile.flat.start)).mul_(_signed(0x9E3779B1)).bitwise_xor_(_signed(seed))
    x.bitwise_xor_(_shifted(x, 16)).mul_(_signed(0x85EBCA6B))
    x.bitwise_xor_(_shifted(x, 13)).mul_(_signed(0xC2B2AE35))
    return x.bitwise_xor_(_shifted(x, 16)).bitwise_and_(0xFFFF)


def _signed(number: int) -> int:
    """The number modulo 2³² that an int32 with the same bits is."""
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """To the right, with zeros coming in from the left."""
    return (x >> bits).bitwise_and_((1 << (32 - bits)) - 1)
