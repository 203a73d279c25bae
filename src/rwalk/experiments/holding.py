"""Folders that one process works in at a time."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["FolderHeldError", "held"]

LOCK = ".lock"


class FolderHeldError(OSError):
    """Another process works in this folder."""


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Inside, no other process holds this folder. It is made if need be; made for nothing, it goes again.

    The lock is the operating system's and ends with the process, however that ends. The file says who holds it, which
    a file of filelock 3.16, the lowest allowed, does not: whoever tries to take that empties it.

    Args:
        folder: The folder.

    Raises:
        FolderHeldError: Another process holds it; the message says which.
        OSError: Nothing can be written there.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    handle = _lock(path)
    if handle is None:
        raise FolderHeldError(f"{folder} is in use by {_holder(path)}: wait for it to end, or choose another folder")
    try:
        yield
    finally:
        if os.name != "nt":  # where a file that is open cannot be removed
            path.unlink(missing_ok=True)
        os.close(handle)
        for place in missing:
            with contextlib.suppress(OSError):  # it holds something
                place.rmdir()


def _lock(path: Path) -> int | None:
    """A handle that holds the lock, or None."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists() or os.fstat(handle).st_ino != path.stat().st_ino:  # its holder has just removed it
                raise BlockingIOError
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
    except OSError:
        os.close(handle)
        return None
    return handle


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:200] or "another process"
    except OSError:
        return "another process"
