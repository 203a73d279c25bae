"""How RWalk sees an optimizer's own steps."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import LBFGS, Optimizer

from rwalk.core.attachments import follow, follower_of, let_go
from rwalk.errors import RWalkError

__all__ = ["OptimizerHooks", "base_optimizer", "release"]


def base_optimizer(optimizer: Optimizer) -> Optimizer:
    """The torch optimizer inside wrappers that keep it as ``.optimizer`` (Accelerate's does).

    Raises:
        TypeError: Not an optimizer.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer={optimizer!r}: expected a torch.optim.Optimizer")
    inner = getattr(optimizer, "optimizer", None)
    return base_optimizer(inner) if isinstance(inner, Optimizer) else optimizer


def release(optimizer: Optimizer) -> bool:
    """Detach whatever follows an optimizer; whether there was anything."""
    hooks = follower_of(base_optimizer(optimizer))
    if hooks is None:
        return False
    hooks.rwalk.detach()
    return True


class StepFollower(Protocol):
    """What the hooks call at each step of the optimizer; ``RWalk`` is one."""

    def before_step(self, *, grad_scale: Any = None, certain: bool = False) -> None:
        """Gradients are complete; the optimizer is about to use them."""

    def after_step(self, *, skipped: bool = False) -> None:
        """The optimizer has stepped, or skipped the step."""

    def abandon_step(self) -> None:
        """The optimizer raised; ``after_step`` will not come."""

    def detach(self) -> None:
        """Stop following the optimizer."""


class OptimizerHooks:
    """Calls ``before_step`` and ``after_step`` from an optimizer's step hooks.

    - A closure runs backward *inside* the step, when a pre-hook has long run: it is wrapped, so that gradients are
      read right after it. An optimizer that calls it more than once a step has no one gradient, and is refused.
    - A fused optimizer under GradScaler receives scaled gradients, ``grad_scale`` and ``found_inf`` and may skip the
      step by itself.
    - A step that raises is not counted, but for roundings. Its ``.grad`` holds the penalty's gradient: clear it before
      trying again.
    - A step that calls its parent class's ``step`` fires the hooks of both; only the outer ones count.
    - Another optimizer that is about to move the same parameters is refused: its steps would not be seen.

    Args:
        optimizer: Whose steps to follow.
        rwalk: Whom to tell.

    Raises:
        RWalkError: LBFGS, or an optimizer that another RWalk follows already.
    """

    def __init__(self, optimizer: Optimizer, rwalk: StepFollower) -> None:
        if isinstance(optimizer, LBFGS):
            raise RWalkError(
                "LBFGS evaluates its closure several times a step, so there is no one gradient to score: "
                "use a first-order optimizer"
            )
        if follower_of(optimizer) is not None:
            raise RWalkError(
                "another RWalk is attached to this optimizer: detach() it first (RWalk.release(optimizer) does, if it "
                "is out of reach), or use one RWalk (one plugin) only"
            )
        self.rwalk = rwalk
        self._optimizer = optimizer
        self._handles = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]
        self._read: list[tuple[Tensor, int]] | None = None  # gradients as before_step left them, until the step ends
        self._caller: FrameType | None = None  # who called the step that was read
        self._closure: Callable[[], Any] | None = None
        self._nested = 0
        follow(optimizer, self)

    def remove(self) -> None:
        """Stop following."""
        for handle in self._handles:
            handle.remove()
        self._read = self._caller = self._closure = None
        let_go(self._optimizer)

    def is_stepping(self) -> bool:
        """Whether the optimizer is in the middle of a step that is followed."""
        return self._caller is not None and _is_running(self._caller)

    def _before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        closure = kwargs.get("closure") or next((arg for arg in args[1:] if callable(arg)), None)
        if self._is_nested(closure):
            self._nested += 1
            return None
        self._nested = 0
        if self._read is not None:  # the optimizer raised in its last step
            self._read = None
            self.rwalk.abandon_step()
        self._caller = sys._getframe(1)
        if closure is None:
            certain = getattr(optimizer, "found_inf", None) is None
            self.rwalk.before_step(grad_scale=getattr(optimizer, "grad_scale", None), certain=certain)
            self._read = self._gradients()
            return None
        wrapped = self._closure = self._reading_after(closure)
        return (
            tuple(wrapped if arg is closure else arg for arg in args),
            {key: wrapped if value is closure else value for key, value in kwargs.items()},
        )

    def _is_nested(self, closure: Callable[[], Any] | None) -> bool:
        """Whether this is ``super().step()`` of a step that was read already: torch runs the hooks there once more."""
        if closure is not None:
            return closure is self._closure
        return self._read is not None and (_is_running(self._caller) or self._is_unchanged(self._read))

    def _is_unchanged(self, read: list[tuple[Tensor, int]]) -> bool:
        now = self._gradients()
        pairs = zip(read, now, strict=False)
        return len(now) == len(read) and all(a is b and old == new for (a, old), (b, new) in pairs)

    def _gradients(self) -> list[tuple[Tensor, int]]:
        gradients = [p.grad for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        return [(gradient, gradient._version) for gradient in gradients]

    def _reading_after(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        calls = 0

        def wrapped() -> Any:
            nonlocal calls
            calls += 1
            if calls > 1:
                self._read = None
                self.rwalk.abandon_step()
                raise RWalkError(
                    f"{type(self._optimizer).__name__} called its closure {calls} times in one step, so there is no "
                    "one gradient to score: use an optimizer that calls it once"
                )
            with torch.enable_grad():
                loss = closure()
            self.rwalk.before_step(certain=True)
            self._read = self._gradients()
            return loss

        return wrapped

    def _after(self, optimizer: Optimizer, *_: Any) -> None:
        if self._nested:
            self._nested -= 1
            return
        self._read = self._closure = self._caller = None
        found_inf = getattr(optimizer, "found_inf", None)
        self.rwalk.after_step(skipped=found_inf is not None and bool(found_inf.item()))


def _is_running(frame: FrameType | None) -> bool:
    """Whether a call is still going on, further up."""
    above: FrameType | None = sys._getframe(1)
    while above is not None and above is not frame:
        above = above.f_back
    return above is not None
