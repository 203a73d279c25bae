"""A mean over batches that does not wait for the device."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["RunningMean"]


class RunningMean:
    """A mean whose sum stays on the device until ``float()`` asks for it.

    Sums of floating numbers are kept in float32 at least: in bfloat16, adding 1 to 256 gives 256.

    Attributes:
        count: What has been counted so far, usually samples.

    Example:
        >>> mean = RunningMean()
        >>> mean.add_mean(torch.tensor(0.5), 3)
        >>> mean.add_sum(torch.tensor(2), 2)
        >>> float(mean)
        0.7
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | None = None

    def add_sum(self, total: Tensor, count: int) -> None:
        """Count the sum of ``count`` values, a scalar tensor."""
        self._add(total, 1, count)

    def add_mean(self, mean: Tensor, count: int = 1) -> None:
        """Count the mean of ``count`` values, a scalar tensor."""
        self._add(mean, count, count)

    def merge(self, other: RunningMean) -> None:
        """Count all that another has counted."""
        if other._sum is not None:
            self._add(other._sum, 1, other.count)

    def __float__(self) -> float:
        """The mean; 0 if nothing was counted. This is where the device is waited for."""
        return 0.0 if self._sum is None else float(self._sum) / max(self.count, 1)

    def _add(self, value: Tensor, times: int, count: int) -> None:
        value = value.detach() if value.requires_grad else value
        if self._sum is None:
            wide = torch.promote_types(value.dtype, torch.float32) if value.is_floating_point() else value.dtype
            self._sum = torch.zeros_like(value, dtype=wide)
        self._sum.add_(value, alpha=times)
        self.count += count
