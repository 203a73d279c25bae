"""Trainer's optimizer steps: which of them RWalk cannot see, and where they have led while averages are shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from rwalk.core import RWalk
from rwalk.core.sharding import local
from rwalk.errors import RWalkError

__all__ = ["StepWatch", "shows_averages", "where_steps_led"]


class StepWatch:
    """Notices a step that RWalk cannot see. One without a gradient, or with none that counts, was seen.

    An optimizer that changes weights during backward (LOMO) leaves no gradients; whether weights moved without any is
    looked at in the first step, and after each that had none.

    Args:
        rwalk: What follows the optimizer.
    """

    def __init__(self, rwalk: RWalk) -> None:
        protected = rwalk.protected()
        self._optimizer = rwalk.optimizer
        self._parameters = [p for p in rwalk.model.parameters() if id(p) in protected]
        self._handle = rwalk.optimizer.register_step_post_hook(self._note)
        self._stepped = self._had_gradient = False
        self._sums: list[Tensor] = []

    def begin(self) -> None:
        """A step begins: no gradient is computed yet."""
        self._stepped = False
        looks = not self._had_gradient and not shows_averages(self._optimizer)  # which are about to be taken away
        self._sums = self._summed() if looks else []

    def check(self, number: int) -> None:
        """A step has ended, and gradients are not cleared yet.

        Raises:
            RWalkError: It was none that RWalk can see.
        """
        self._had_gradient = any(p.grad is not None for p in self._parameters)
        if not self._stepped or (self._sums and not self._had_gradient and self._moved()):
            raise RWalkError(
                f"RWalk did not see optimizer step {number}: the optimizer runs no step hooks, or "
                "changes weights during backward (LOMO); give Trainer another one, before train()"
            )

    def remove(self) -> None:
        """Stop watching."""
        self._handle.remove()

    def _note(self, *_: Any) -> None:
        self._stepped = True

    def _summed(self) -> list[Tensor]:
        return [local(p).detach().sum() for p in self._parameters]

    def _moved(self) -> bool:
        pairs = zip(self._sums, self._summed(), strict=True)
        return not all(torch.equal(before.nan_to_num(), now.nan_to_num()) for before, now in pairs)


def shows_averages(optimizer: Optimizer) -> bool:
    """Whether a schedule-free optimizer has put averaged weights in place, for an evaluation."""
    groups: list[dict[str, Any]] = optimizer.param_groups
    return any(group.get("train_mode") is False for group in groups)


@contextmanager
def where_steps_led(optimizer: Optimizer) -> Iterator[None]:
    """Inside, the weights are those that the steps have led to; afterwards they are bit for bit what they were.

    Args:
        optimizer: Schedule-free, or any other: then nothing happens.
    """
    if not shows_averages(optimizer):
        yield
        return
    shown = [(local(p), local(p).detach().clone()) for group in optimizer.param_groups for p in group["params"]]
    switching: Any = optimizer
    switching.train()
    try:
        yield
    finally:
        switching.eval()
        with torch.no_grad():
            for weights, values in shown:
                weights.copy_(values)
