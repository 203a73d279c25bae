"""A mean over batches that does not wait for the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["RunningMean"]


class RunningMean:
    """A mean whose sum stays on the device until ``float()`` asks for it.

    Sums of floating numbers are kept in float32 at least: in bfloat16, adding 1 to 256 gives 256.

    Attributes:
        count: What has been counted so far, usually samples; a tensor where counts came as tensors.

    Example:
        >>> mean = RunningMean()
        >>> mean.add_mean(torch.tensor(0.5), 3)
        >>> mean.add_sum(torch.tensor(2), 2)
        >>> float(mean)
        0.7
    """

    def __init__(self) -> None:
        self.count: int | Tensor = 0
        self._sum: Tensor | None = None

    def add_sum(self, total: Tensor, count: int | Tensor) -> None:
        """Count the sum of ``count`` values, a scalar tensor."""
        self._add(total, 1, count)

    def add_mean(self, mean: Tensor, count: int | Tensor = 1) -> None:
        """Count the mean of ``count`` values, a scalar tensor; the mean of none may be NaN."""
        if isinstance(count, Tensor):
            self._add(torch.where(count > 0, mean.detach() * count, 0.0), 1, count)
        else:
            self._add(mean, count, count)

    def merge(self, other: RunningMean) -> None:
        """Count all that another has counted."""
        if other._sum is not None:
            self._add(other._sum, 1, other.count)

    @property
    def started(self) -> bool:
        """Whether anything was counted."""
        return self._sum is not None

    def value(self, total: Callable[[Tensor], Tensor] | None = None) -> float:
        """The mean; with ``total``, which adds up over processes, that of all of them, which all have to ask for."""
        if self._sum is None or total is None:
            return float(self)
        both, count = total(torch.stack([self._sum, torch.as_tensor(self.count).to(self._sum)])).tolist()
        return float(both / max(count, 1))

    def __float__(self) -> float:
        """The mean; 0 if nothing was counted. This is where the device is waited for."""
        total, count = self._read()
        return total / max(count, 1)

    def state_dict(self) -> dict[str, Any]:
        """What was counted so far, as numbers, and in which precision sums are kept."""
        total, count = self._read()
        dtype = None if self._sum is None else str(self._sum.dtype).removeprefix("torch.")
        return {"sum": None if self._sum is None else float(total), "count": int(count), "dtype": dtype}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting from a ``state_dict``."""
        total = state_dict["sum"]
        kept = getattr(torch, str(state_dict.get("dtype")), torch.float64)  # states of older versions do not say
        self._sum = None if total is None else torch.tensor(total, dtype=torch.float64).to(kept)
        self.count = state_dict["count"]

    def _read(self) -> tuple[float, float]:
        """Sum and count, in one transfer."""
        if self._sum is None:
            return 0.0, 0
        if isinstance(self.count, Tensor):
            total, count = torch.stack([self._sum, self.count.to(self._sum)]).tolist()
            return total, count
        return self._sum.item(), self.count

    def _add(self, value: Tensor, times: int, count: int | Tensor) -> None:
        value = value.detach() if value.requires_grad else value
        if self._sum is None:
            wide = torch.promote_types(value.dtype, torch.float32) if value.is_floating_point() else value.dtype
            self._sum = torch.zeros_like(value, dtype=wide)
        elif self._sum.device != value.device:  # a state that was loaded
            self._sum = self._sum.to(value.device)
        self._sum.add_(value, alpha=times)
        self.count = self.count + count
