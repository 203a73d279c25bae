"""Training loops to be measured: plain, with rwalk, and what both share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import cycle
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from benchmarks.cases import Batch
from benchmarks.timing import Run, Visit
from rwalk import RWalk, RWalkConfig

__all__ = ["attached", "check_finite", "past_first_task", "plain_loop"]


def plain_loop(model: nn.Module, optimizer: Optimizer, batches: Sequence[Batch]) -> Run:
    """The loop that everybody writes, over prepared batches."""
    stream = cycle(batches)
    criterion = nn.CrossEntropyLoss()

    def run(steps: int) -> None:
        for _ in range(steps):
            x, y = next(stream)
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()

    return run


def past_first_task(model: nn.Module, optimizer: Optimizer, run: Run, **settings: Any) -> tuple[RWalk, float]:
    """An RWalk whose penalty acts, detached.

    Args:
        model: What is trained.
        optimizer: What trains it.
        run: Does steps with that optimizer.
        settings: Of ``RWalkConfig``.

    Returns:
        It, and seconds that the first step took (with whatever the backend prepares in it).
    """
    rwalk = RWalk(model, optimizer, RWalkConfig(**settings))
    began = time.perf_counter()
    run(1)
    first = time.perf_counter() - began
    run(2)
    rwalk.consolidate()
    run(1)
    rwalk.detach()
    return rwalk, first


class Follower(Protocol):
    """What can follow an optimizer and let go of it: an ``RWalk``, a ``BaseProtection``."""

    def attach(self) -> None:
        """Follow."""

    def detach(self) -> None:
        """Let go."""


def attached(rwalk: Follower, turn: Visit, steps: int) -> Visit:
    """A turn of so many steps during which rwalk follows the optimizer.

    Letting go, which settles the last step, counts: in a run without turns the next step would do it.
    """

    def wrapped() -> float:
        rwalk.attach()
        try:
            seconds = turn()
        finally:
            began = time.perf_counter()
            rwalk.detach()
        return seconds + (time.perf_counter() - began) / steps

    return wrapped


def check_finite(model: nn.Module) -> None:
    """Refuse figures of a network that has diverged: arithmetic on NaN takes another time.

    Raises:
        RuntimeError: A parameter is not finite.
    """
    bad = [name for name, parameter in model.named_parameters() if not bool(torch.isfinite(parameter).all())]
    if bad:
        raise RuntimeError(f"{bad[0]} is not finite after the measurement: its figures mean nothing")
