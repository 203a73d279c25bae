"""A consolidated state in three bytes a parameter: one for the importance, two for the anchor.

An importance is zero, or one of 255 numbers that lie evenly on a logarithmic scale below the largest one of its tensor.
The scale is as fine as the smallest importance allows, and spans a factor of 2³² at most: smaller ones are rounded up
to its end. So no importance becomes zero or infinite, none that is zero becomes anything else, the largest stays as it
is, and the others are right to 4.5 % or better. An anchor is in half precision, times a power of two: right to 2⁻¹².
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["SCALARS", "STORED", "coded", "decoded", "halved", "restored"]

#: How both are stored, and the numbers that belong to them.
STORED = {"importance": torch.uint8, "anchor": torch.float16}
SCALARS = ("importance_high", "importance_step", "anchor_exponent")
#: The largest code, and how many octaves the scale spans at most.
LAST, OCTAVES = 255, 32.0
#: Half precision holds magnitudes below 2^16, and those above 2^-14 to 12 bits.
TOP = 15
#: Elements that are worked on at a time, in double precision.
PIECE = 1 << 18


def coded(importance: Tensor) -> tuple[Tensor, float, float]:
    """Importances (floating, ≥ 0, finite) as codes of one byte.

    Returns:
        The codes, the importance of code 255, and the octaves from one code to the next.
    """
    codes = torch.zeros(importance.shape, dtype=torch.uint8)
    high, low = 0.0, math.inf
    for _, piece in _pieces(importance):
        high = max(high, float(piece.max()))
        low = min(low, float(torch.where(piece > 0, piece, math.inf).min()))
    if high == 0.0:
        return codes, 0.0, 0.0
    top = math.log2(high)
    step = min(top - math.log2(low), OCTAVES) / (LAST - 1)
    for span, piece in _pieces(importance):
        below = (top - piece.log2()) / step if step else torch.zeros_like(piece)
        code = (LAST - below.round()).clamp(1, LAST)
        codes.view(-1)[span] = torch.where(piece > 0, code, 0.0).to(torch.uint8)
    return codes, high, step


def decoded(codes: Tensor, high: float, step: float, dtype: torch.dtype) -> Tensor:
    """Importances from their codes, in a dtype of the state: exactly zero where the code is."""
    finfo = torch.finfo(dtype)
    table = high * torch.exp2(-step * torch.arange(LAST, -1, -1, dtype=torch.float64))
    table = table.clamp(finfo.tiny, finfo.max) if high else table
    table[0] = 0.0
    values, table = torch.empty(codes.shape, dtype=dtype), table.to(dtype)
    for start in range(0, codes.numel(), PIECE):
        span = slice(start, start + PIECE)
        values.view(-1)[span] = table[codes.view(-1)[span].long()]
    return values


def halved(anchor: Tensor) -> tuple[Tensor, int]:
    """Anchors in half precision, and the power of two by which they have to be multiplied."""
    half = torch.zeros(anchor.shape, dtype=torch.float16)
    high = max((float(piece.abs().max()) for _, piece in _pieces(anchor)), default=0.0)
    exponent = math.frexp(high)[1] - TOP if high else 0
    for span, piece in _pieces(anchor):
        half.view(-1)[span] = torch.ldexp(piece, torch.tensor(-exponent)).to(torch.float16)
    return half, exponent


def restored(half: Tensor, exponent: int, dtype: torch.dtype) -> Tensor:
    """Anchors from half precision, in a dtype of the state."""
    values = torch.empty(half.shape, dtype=dtype)
    for span, piece in _pieces(half):
        values.view(-1)[span] = torch.ldexp(piece, torch.tensor(exponent)).to(dtype)
    return values


def _pieces(values: Tensor) -> Iterator[tuple[slice, Tensor]]:
    flat = values.reshape(-1)
    for start in range(0, flat.numel(), PIECE):
        span = slice(start, start + PIECE)
        yield span, flat[span].to("cpu", torch.float64)
