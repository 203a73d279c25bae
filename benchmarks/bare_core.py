"""The core alone: what it does in a step, without model, data or optimizer around it."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD

from benchmarks.models import wide
from benchmarks.timing import Visit
from rwalk import RWalk, RWalkConfig

__all__ = ["BYTES_MOVED_PER_ELEMENT", "core", "core_visit", "triad"]

BYTES_MOVED_PER_ELEMENT = 12


def core(parameters: int, **settings: Any) -> RWalk:
    """An RWalk past its first task, on square layers with gradients that stay as they are.

    Args:
        parameters: About how many.
        settings: Of ``RWalkConfig``.
    """
    torch.manual_seed(0)
    model = wide(parameters, width=1024)
    optimizer = SGD(model.parameters(), lr=1e-3)
    rwalk = RWalk(model, optimizer, RWalkConfig(**settings), attach=False)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter).mul_(1e-3)
    for _ in range(2):
        rwalk.before_step()
        optimizer.step()
        rwalk.after_step()
    rwalk.consolidate()
    return rwalk


def core_visit(rwalk: RWalk, steps: int, evict: Tensor | None = None) -> Visit:
    """A turn of the core's part of a step. The weights rest, so that penalty and gradients stay as they are.

    Args:
        rwalk: From ``core``.
        steps: Timed steps; one more comes before them.
        evict: Written to before each step, so that the cache holds none of rwalk's buffers, as after a forward and
            backward pass. Not timed.

    Returns:
        A function that does so and returns seconds per step.
    """

    def turn() -> float:
        total = 0.0
        for index in range(steps + 1):
            if evict is not None:
                evict.add_(1.0)
            began = time.perf_counter()
            rwalk.before_step()
            rwalk.after_step()
            total += (time.perf_counter() - began) * (index > 0)
        return total / steps

    return turn


def triad(elements: int) -> Visit:
    """A turn of the STREAM triad, a = b + s·c, on arrays that no cache holds.

    Args:
        elements: Length of each of the three float32 arrays.

    Returns:
        A function that returns seconds per pass; each moves 12 bytes an element, write-allocate not counted.
    """
    b, c, a = torch.rand(elements), torch.rand(elements), torch.empty(elements)

    def turn() -> float:
        torch.add(b, c, alpha=3.0, out=a)
        began = time.perf_counter()
        for _ in range(5):
            torch.add(b, c, alpha=3.0, out=a)
        return (time.perf_counter() - began) / 5

    return turn
