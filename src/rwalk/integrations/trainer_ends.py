"""Trainer's callbacks before and after all others as training ends: the walk ends first, and the task last."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler

__all__ = ["Ends", "handler_that_calls"]

End = Callable[[Any, Any, Mapping[str, Any]], None]


class Ends:
    """Has two functions called as training ends, each with ``args``, ``state`` and what else callbacks are given.

    Args:
        handler: Trainer's list of callbacks. It is as it was once training has ended.
        owner: A callback in it; if that is removed, nothing is called.
        first: Called before all callbacks.
        last: Called after all of them, also those that are added in the meantime.
    """

    def __init__(self, handler: CallbackHandler, owner: TrainerCallback, first: End, last: End) -> None:
        self._handler, self._owner = handler, owner
        self._first, self._last = _AtTheEnd(self._begin), _AtTheEnd(last)
        self._act = first
        handler.callbacks = [self._first, *handler.callbacks]  # a new list: the old one is being gone through

    def remove(self) -> None:
        """Leave the other callbacks alone."""
        ours = (self._first, self._last)
        self._handler.callbacks = [callback for callback in self._handler.callbacks if callback not in ours]

    def _begin(self, args: Any, state: Any, kwargs: Mapping[str, Any]) -> None:
        if self._owner not in self._handler.callbacks:
            self.remove()
            return
        self._handler.callbacks.append(self._last)  # to the list that is being gone through
        self._act(args, state, kwargs)


class _AtTheEnd(TrainerCallback):
    def __init__(self, act: End) -> None:
        self._act = act

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Act."""
        self._act(args, state, kwargs)


def handler_that_calls(callback: TrainerCallback) -> CallbackHandler | None:
    """The list of callbacks that is calling this one, which Trainer does not tell it; None where something else is."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, CallbackHandler):
            return found if callback in found.callbacks else None
        frame = frame.f_back
    return None
