"""How many remembered samples of each class a batch gets, where classes are balanced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["InShares", "balanced_shares", "systematic_counts"]

BLOCK = 64  # batches that are drawn at once


def balanced_shares(arriving: Mapping[int, int], kept: Mapping[int, int], batch_size: int) -> dict[int, float]:
    r"""Remembered samples of each class in a batch, on average, so that there are as many of each as of a new class.

    A batch of B new samples holds :math:`m = B / C` of each of the C classes that arrive, on average over them, and
    :math:`B n_c / N` of class c, of which :math:`n_c` of all N samples are. A class that is remembered is brought to m:

    .. math:: r_c = \max(0, m - B n_c / N)

    Args:
        arriving: Samples of each class that arrives, :math:`n_c`.
        kept: Exemplars of each class; classes without any get no share.
        batch_size: B.

    Returns:
        :math:`r_c` by class, where it is above 0.

    Example:
        >>> balanced_shares({2: 50, 3: 50}, {0: 10, 1: 2}, 20)
        {0: 10.0, 1: 10.0}
        >>> balanced_shares({0: 5, 3: 95}, {0: 10, 1: 10}, 20)
        {0: 9.0, 1: 10.0}
    """
    whole = sum(arriving.values())
    each = batch_size / len(arriving)
    shares = {label: each - batch_size * arriving.get(label, 0) / whole for label, count in kept.items() if count}
    return {label: share for label, share in shares.items() if share > 1e-9 * batch_size}


def systematic_counts(shares: Tensor, begin: Tensor) -> Tensor:
    r"""Whole numbers that are shares on average.

    The shares lie end to end on a line with a mark at :math:`u, u + 1, u + 2, \dots`; a share gets the marks on it. For
    u uniform on [0, 1) their number is the share on average and less than 1 off it, and so is the sum of them all.

    Args:
        shares: At least 0, shape (C,), float64.
        begin: u of each draw, shape (B,), float64.

    Returns:
        Shape (B, C), int64.

    Example:
        >>> systematic_counts(torch.tensor([2.0, 0.5, 0.5]).double(), torch.tensor([0.2, 0.7]).double())
        tensor([[2, 1, 0],
                [2, 0, 1]])
    """
    ends = torch.cat([shares.new_zeros(1), shares.cumsum(0)])
    return (ends - begin.unsqueeze(1)).ceil().diff(dim=1).long()


class InShares:
    """Draws positions for one batch after the other, each class's share of them.

    Args:
        classes: For each class what gives so many of its positions.
        shares: For each class how many a batch gets on average.
    """

    def __init__(self, classes: Sequence[Callable[[int], Tensor]], shares: Sequence[float]) -> None:
        self.classes, self.shares = list(classes), torch.tensor(list(shares), dtype=torch.float64)
        self.ahead: list[Tensor] = []

    def __call__(self) -> Tensor:
        """Those of the next batch, class by class."""
        if not self.ahead:
            counts = systematic_counts(self.shares, torch.rand(BLOCK, dtype=torch.float64))
            drawn = torch.cat([take(sum(column)) for take, column in zip(self.classes, counts.T.tolist(), strict=True)])
            batch = torch.cat([torch.arange(BLOCK).repeat_interleave(column) for column in counts.T])
            self.ahead = list(drawn[batch.argsort(stable=True)].split(counts.sum(dim=1).tolist()))
        return self.ahead.pop(0)

    def state_dict(self) -> dict[str, Any]:
        """What the next batches get, and each class's positions after that."""
        return {
            "ahead": [positions.clone() for positions in self.ahead],
            "classes": [take.state_dict() if hasattr(take, "state_dict") else None for take in self.classes],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with these."""
        self.ahead = [positions.clone() for positions in state_dict["ahead"]]
        for take, state in zip(self.classes, state_dict["classes"], strict=True):
            if state is not None:
                take.load_state_dict(state)  # type: ignore[attr-defined]
