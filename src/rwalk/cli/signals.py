"""SIGTERM and SIGINT: a checkpoint where there can be one, one line, and an exit status of 128 and the signal."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

__all__ = ["SignalledError", "at_once", "heeded", "last_line", "when_signalled"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
NAMES = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
GRACE = 3.0  # seconds for workers to write their checkpoints

_asked: list[Callable[[], bool]] = []
_received: list[int] = []


class SignalledError(SystemExit):
    """The process was asked to end.

    Args:
        number: By which signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


@contextmanager
def at_once() -> Iterator[None]:
    """Inside (while modules are imported, which must not be left half-way), a signal ends the process at once."""
    with _handled(_end):
        yield


@contextmanager
def heeded() -> Iterator[None]:
    """Inside, a signal asks for a checkpoint, if ``when_signalled`` was given what can write one, else raises.

    A second signal does not wait for it.

    Raises:
        SignalledError: There was a signal.
    """
    _received.clear()
    with _handled(_ask):
        yield


@contextmanager
def when_signalled(ask: Callable[[], bool]) -> Iterator[None]:
    """Inside, a signal calls this; it returns whether the program will end by itself soon."""
    from rwalk.training.plugins.checkpoints import Stopped

    _asked.append(ask)
    try:
        yield
    except Stopped:
        raise SignalledError(_received[0] if _received else signal.SIGTERM) from None
    finally:
        _asked.remove(ask)


def last_line(error: SignalledError) -> str:
    """What there is to say."""
    return f"rwalk: {NAMES.get(signal.Signals(error.number), 'ended')}\n"


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handled in before.items():
            signal.signal(number, handled)


def _end(number: int, _: FrameType | None) -> NoReturn:
    with suppress(OSError):
        os.write(2, last_line(SignalledError(number)).encode())
    os._exit(128 + number)


def _ask(number: int, _: FrameType | None) -> None:
    _received.append(number)
    if len(_received) == 1:
        answers = [ask() for ask in _asked]
        if any(answers):
            return
        _end_workers()
    raise SignalledError(_received[0])


def _end_workers() -> None:
    """Let processes that work for this one write their checkpoints; they end with it in any case."""
    import multiprocessing

    workers = [process for process in multiprocessing.active_children() if process.is_alive()]
    for process in workers:
        with suppress(OSError):
            os.kill(process.pid or 0, signal.SIGTERM)
    until = time.monotonic() + GRACE
    while any(process.is_alive() for process in workers) and time.monotonic() < until:
        time.sleep(0.05)
