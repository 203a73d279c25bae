"""What a model is like at a moment: its modes, and whether its weights were written to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch
from torch import nn

__all__ = ["in_eval_mode", "quietly", "weights_version", "with_buffers_put_back"]

P = ParamSpec("P")
R = TypeVar("R")


def quietly(function: Callable[P, R]) -> Callable[P, R]:
    """A function that records no gradients, and makes ordinary tensors though it may be called in inference mode.

    Example:
        >>> with torch.inference_mode():
        ...     quietly(torch.zeros)(1).is_inference()
        False
    """
    return torch.inference_mode(False)(torch.no_grad()(function))


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Inside, every module is in eval mode; afterwards each has the mode that it had, also after an error.

    Modes are set one by one, because ``train()`` and ``eval()`` may be overridden and do more than that. Modules that
    come in meanwhile keep their own.

    Example:
        >>> model = nn.Sequential(nn.Dropout().eval(), nn.Linear(2, 2))
        >>> with in_eval_mode(model):
        ...     model.training, model[1].training
        (False, False)
        >>> [module.training for module in model.modules()]
        [True, False, True]
    """
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def with_buffers_put_back(model: nn.Module) -> Iterator[None]:
    """Afterwards buffers (running statistics of normalisation layers) are what they were, also after an error.

    Those that were assigned anew meanwhile too: the module has its own tensor back.

    Example:
        >>> layer = nn.BatchNorm1d(2)
        >>> with with_buffers_put_back(layer):
        ...     _ = layer(torch.ones(3, 2))
        >>> layer.running_mean.tolist()
        [0.0, 0.0]
    """
    before = [
        (module, name, buffer, None if buffer is None else buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, value in before:
                module._buffers[name] = buffer
                if buffer is not None and value is not None:
                    buffer.copy_(value)


def weights_version(model: nn.Module) -> list[int]:
    """Changes whenever something is written to a model's parameters or buffers, other than through ``.data``.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> before = weights_version(layer)
        >>> _ = layer.bias.detach().zero_()
        >>> before == weights_version(layer)
        False
    """
    return [tensor._version for tensor in (*model.parameters(), *model.buffers())]
