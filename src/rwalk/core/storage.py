"""How and where quantities are kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Storage"]

#: What tolerates bfloat16: sums and averages (rounded at random, so that small terms are not lost), the gradient
#: between the halves of a step, and the penalty's importances. Weights subtracted from each other do not.
TOLERANT = frozenset(
    {
        "fisher",
        "loss_change",
        "score",
        "task_score",
        "window_fisher",
        "displacement",
        "gradient",
        "importance",
    }
)
#: What is read and written only where a window opens or closes, or a task ends.
SELDOM_USED = frozenset({"score", "task_score", "window_start", "window_fisher"})


#: Large tensors begin at the start of a page, and elements of equal index would compete for the same few lines of the
#: first-level cache; so each quantity begins some bytes further on than the one before.
STAGGER = 256
ORDER = (
    *("gradient", "before", "importance", "anchor", "fisher", "loss_change", "window_start", "score", "displacement"),
    *("task_score", "window_fisher"),
)


@dataclass(frozen=True)
class Storage:
    """How quantities are kept.

    Attributes:
        compact: In bfloat16, what tolerates it.
        offload: In the host's memory, what is seldom used.
    """

    compact: bool = False
    offload: bool = False

    def zeros(self, quantity: str, size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Room for a quantity of parameters on ``device`` whose arithmetic is done in ``dtype``."""
        compact = self.compact and quantity in TOLERANT and dtype is torch.float32
        kept = torch.bfloat16 if compact else dtype
        if self.is_elsewhere(quantity, device):
            return torch.zeros(size, dtype=kept, pin_memory=device.type == "cuda")
        if device.type != "cpu":
            return torch.zeros(size, dtype=kept, device=device)
        skipped = STAGGER * ORDER.index(quantity) // kept.itemsize
        return torch.zeros(skipped + size, dtype=kept)[skipped:]

    def is_elsewhere(self, quantity: str, device: torch.device) -> bool:
        """Whether the quantity is kept in the host's memory while the parameters are on another device."""
        return self.offload and quantity in SELDOM_USED and device.type != "cpu"
