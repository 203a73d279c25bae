"""Which optimizers are followed; a step of another one over the same parameters, which nobody would see, is refused."""

from __future__ import annotations

import gc
from functools import cache
from typing import Any, Protocol
from weakref import WeakKeyDictionary, ref

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from rwalk.errors import RWalkError

__all__ = ["follow", "follower_of", "let_go"]


class Follower(Protocol):
    """What follows an optimizer; ``OptimizerHooks`` is one."""

    def is_stepping(self) -> bool:
        """Whether its optimizer is in the middle of a step."""


_ATTACHED: WeakKeyDictionary[Optimizer, ref[Any]] = WeakKeyDictionary()


def follow(optimizer: Optimizer, follower: Follower) -> None:
    """Note that an optimizer is followed; from now on no other one moves its parameters unnoticed."""
    _watch_all_optimizers()
    _ATTACHED[optimizer] = ref(follower)


def let_go(optimizer: Optimizer) -> None:
    """Note that it is followed no more."""
    _ATTACHED.pop(optimizer, None)


def follower_of(optimizer: Optimizer) -> Any:
    """What follows an optimizer; None if nothing does."""
    held = _ATTACHED.get(optimizer)
    return None if held is None else held()


@cache
def _watch_all_optimizers() -> None:
    # Once and for good: torch walks through its common hooks in each step, when none may be taken away.
    register_optimizer_step_pre_hook(_refuse_unseen_step)


def _refuse_unseen_step(optimizer: Optimizer, *_: Any) -> None:
    if not _ATTACHED or _is_followed(optimizer) or _follows_the_same(optimizer) is None:
        return
    gc.collect()  # an RWalk that was dropped with its optimizer lives on until then, and minds no longer
    name = _follows_the_same(optimizer)
    if name is not None:
        raise RWalkError(
            f"{type(optimizer).__name__} is about to move parameters that RWalk follows through another optimizer "
            f"({name}), and would not see this step: call rwalk.detach() and rwalk.attach(optimizer) with the new one "
            "(RWalk.release(old_optimizer) if the RWalk is out of reach)"
        )


def _is_followed(optimizer: Optimizer) -> bool:
    """Whether it is followed, or the one inside it that takes its steps."""
    inside = (value for value in vars(optimizer).values() if isinstance(value, Optimizer))
    return optimizer in _ATTACHED or any(map(_is_followed, inside))


def _follows_the_same(optimizer: Optimizer) -> str | None:
    """The kind of an optimizer that is followed, is not stepping just now and holds some of the same parameters."""
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for followed in list(_ATTACHED):
        follower = follower_of(followed)
        shares = any(id(p) in moved for group in followed.param_groups for p in group["params"])
        if shares and follower is not None and not follower.is_stepping():
            return type(followed).__name__
    return None
