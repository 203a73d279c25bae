"""The diagonal Fisher from a pass over a data loader."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rwalk.core.buckets import Placement
from rwalk.core.sharding import over_replicas, replicated
from rwalk.errors import RWalkError

__all__ = ["estimate_fisher"]


def estimate_fisher(
    model: nn.Module,
    parameters: dict[str, nn.Parameter],
    batches: Iterable[Any],
    forward: Callable[[Any], Tensor] | None = None,
) -> dict[str, Tensor]:
    r"""Diagonal Fisher from squared batch gradients, the model's most likely class taken as label.

    .. math:: \hat F = \frac1N \sum_b B_b \, \big(\nabla \mathcal L_b\big)^2

    where :math:`\mathcal L_b` is the mean cross-entropy of batch b with :math:`B_b` samples, N in all. The model keeps
    its mode, its ``.grad`` and its buffers (running statistics of normalisation layers are put back). If it is wrapped
    by DistributedDataParallel, N counts all processes' batches, which may be a share each, or all in every one.

    Args:
        model: Maps the first entry of a batch to scores of classes, shape (B, C).
        parameters: Whose Fisher, by name.
        batches: Batches ``(x, ...)``.
        forward: Maps a batch to those scores; ``model(x)`` if None.

    Returns:
        A tensor per name, in the parameter's shape; zero where it is frozen or the output does not depend on it.

    Raises:
        RWalkError: There are no batches.

    References:
        FACIL's ``r_walk.py`` estimates the Fisher like this, after each task.
    """
    total = {name: torch.zeros_like(p, dtype=Placement.of(p).dtype) for name, p in parameters.items()}
    learning = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    device = next(iter(parameters.values())).device
    samples = 0
    wrapper = replicated(model)
    bare = model if wrapper is None else wrapper.module  # whose forward pass waits for no other process
    with torch.enable_grad():
        for batch in batches:
            outputs = bare(batch[0].to(device)) if forward is None else forward(batch)
            loss = nn.functional.cross_entropy(outputs, outputs.argmax(dim=1))
            gradients = torch.autograd.grad(loss, list(learning.values()), allow_unused=True)
            for name, gradient in zip(learning, gradients, strict=True):
                if gradient is not None:
                    total[name].add_(gradient.to(total[name].dtype).square(), alpha=len(outputs))
            samples += len(outputs)
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    samples = over_replicas(wrapper, list(total.values()), samples)
    if samples == 0:
        raise RWalkError("the data loader given for the Fisher has no batches")
    return {name: accumulated / samples for name, accumulated in total.items()}
