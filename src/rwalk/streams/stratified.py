"""Data held out evenly over the classes."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_fraction", "hold_out"]


def hold_out(targets: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divide samples in two, each class in the same proportion.

    Of a class with n samples, ``fraction`` · n rounded to the nearest whole number are held out, at least one and at
    most n − 1.

    Args:
        targets: Class labels, shape (N,), int64.
        fraction: Share held out, between 0 and 1.
        seed: Draws which samples are held out.

    Returns:
        Positions kept and positions held out, each ascending, int64; together they are 0 … N − 1.

    Raises:
        ValueError: ``fraction`` is out of range, or a class has a single sample.

    Example:
        >>> kept, held = hold_out(torch.tensor([0] * 8 + [1] * 4), 0.25, seed=0)
        >>> len(kept), len(held), int((held < 8).sum())
        (9, 3, 2)
    """
    check_fraction(fraction)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    by_class = order[targets.cpu()[order].argsort(stable=True)]
    classes, counts = targets.cpu().unique(return_counts=True)
    held = []
    for label, members in zip(classes.tolist(), by_class.split(counts.tolist()), strict=True):
        if len(members) == 1:
            raise ValueError(f"class {label} has one sample: nothing can be held out of it")
        share = int(fraction * len(members) + 0.5)
        held.append(members[: min(max(share, 1), len(members) - 1)])
    mask = torch.zeros(len(targets), dtype=torch.bool)
    mask[torch.cat(held)] = True
    return (~mask).nonzero().flatten(), mask.nonzero().flatten()


def check_fraction(fraction: float) -> None:
    """Refuse a share that is none.

    Raises:
        ValueError: It is not between 0 and 1, both excluded.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"fraction={fraction!r}: expected a share between 0 and 1, such as 0.1")
