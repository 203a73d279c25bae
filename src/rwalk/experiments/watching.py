"""A process that works for another ends with it, however that ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rwalk.training.plugins.checkpoints import Stopped

__all__ = ["end_with_parent", "gone_with_parent", "when_parent_ends"]

EVERY = 0.5  # seconds between two looks
GRACE = 2.0  # seconds for a checkpoint

_asked: list[Callable[[], object]] = []
_files: set[Path] = set()
_watching = threading.Lock()


def end_with_parent(parent: int) -> None:
    """In a worker: end within three seconds of the process that began it, which need not be able to say so.

    Where that has ended before this is called (while the worker imported what it needs), this does at once.

    Whatever ``when_parent_ends`` was given is called first. An interrupt from the keyboard goes to all processes of a
    terminal; it is left to the parent. Windows does not tell of a parent's end: there, workers end with their work.

    Args:
        parent: That process, by number.
    """
    if not _watching.acquire(blocking=False):  # it watches already
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=_end, daemon=True).start())
    if os.name != "nt":
        threading.Thread(target=_watch, args=(parent,), daemon=True, name="rwalk-parent").start()


def when_parent_ends(act: Callable[[], object] | None) -> None:
    """What to do before this process ends with its parent; None: nothing."""
    _asked[:] = [] if act is None else [act]


@contextmanager
def gone_with_parent(file: Path) -> Iterator[None]:
    """Inside, this file is removed if this process ends with its parent, and nothing else could do it."""
    _files.add(file)
    try:
        yield
    finally:
        _files.discard(file)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(EVERY)
    _end()


def _end() -> None:
    """Ask for a checkpoint, wait for it a while, leave nothing that is of no use, and be gone."""
    for act in _asked:
        with suppress(Exception, Stopped):
            act()
        time.sleep(GRACE)
    for file in tuple(_files):
        with suppress(OSError):
            file.unlink(missing_ok=True)
    os._exit(128 + signal.SIGTERM)
