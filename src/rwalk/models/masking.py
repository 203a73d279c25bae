"""Scores that stand for classes out of the question."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["lowest", "mask_unseen"]


def lowest(dtype: torch.dtype) -> float:
    """The score of a class that must not be chosen: the dtype's lowest number.

    Its softmax is 0 in any company. Unlike −∞ it makes no NaN where that 0 is multiplied by its logarithm.
    """
    return torch.finfo(dtype).min


def mask_unseen(scores: Tensor, seen: Tensor) -> Tensor:
    """Scores of classes in which those not seen yet cannot win.

    Args:
        scores: Shape (B, C), a floating-point dtype.
        seen: Shape (C,), bool. Where none is seen yet, nothing is masked.

    Returns:
        The scores of classes seen, and the dtype's lowest number elsewhere.

    Example:
        >>> mask_unseen(torch.tensor([[1.0, 5.0]]), torch.tensor([True, False])).argmax().item()
        0
    """
    return scores.masked_fill(~seen & seen.any(), lowest(scores.dtype))
