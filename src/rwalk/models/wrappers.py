"""Models inside the wrappers that torch puts around them."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

__all__ = ["compiled", "unwrapped"]


def compiled(model: nn.Module) -> nn.Module | None:
    """The model that ``torch.compile`` has wrapped here; None if it has not."""
    return model._modules.get("_orig_mod")


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside DDP, ``DataParallel`` and ``torch.compile``.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> unwrapped(DataParallel(layer)) is layer
        True
    """
    inner = model.module if isinstance(model, (DataParallel, DistributedDataParallel)) else compiled(model)
    return model if inner is None else unwrapped(inner)
