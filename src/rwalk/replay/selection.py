"""Which samples of a class become exemplars."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["uniform"]


def uniform(candidates: int, budget: int) -> Tensor:
    """Every sample of the class is as likely as any other (the paper's "uniform" sampling).

    Args:
        candidates: Samples of the class.
        budget: How many to choose; all of them if there are fewer.

    Returns:
        Distinct positions in [0, candidates), in random order, int64. Drawn from torch's global generator.
    """
    return torch.randperm(candidates)[:budget]
