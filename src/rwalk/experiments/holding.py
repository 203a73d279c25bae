"""Folders that one process works in at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rwalk.experiments.watching import gone_with_parent

__all__ = ["FolderHeldError", "held"]

LOCK = ".lock"
#: With these the system says that another has the lock; with any other, that there is none to be had.
TAKEN = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}


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
        OSError: It cannot be held, as on a disk that is full or knows no locks; nothing is left there.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LOCK
        handle = _lock(path)
        if handle is None:
            raise FolderHeldError(
                f"{folder} is in use by {_holder(path)}: wait for it to end, or choose another folder"
            )
        try:
            with gone_with_parent(path):
                yield
        finally:
            if os.name != "nt":  # where a file that is open cannot be removed
                path.unlink(missing_ok=True)
            os.close(handle)
    finally:
        for place in missing:
            with contextlib.suppress(OSError):  # it holds something
                place.rmdir()


def _lock(path: Path) -> int | None:
    """A handle that holds the lock, or None if another process does.

    Raises:
        OSError: There is no lock to be had; a file that was made for it goes again.
    """
    made = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(handle)
    except OSError as error:
        os.close(handle)
        if error.errno in TAKEN:
            return None
        if made:
            path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    if os.name != "nt":
        if not _is_at(handle, path):  # its holder has just removed it
            os.close(handle)
            return None
        with contextlib.suppress(OSError):  # no room for a name: the lock holds without
            os.ftruncate(handle, 0)
            os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return handle


def _take(handle: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.fstat(handle).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[:200] or "another process"
    except OSError:
        return "another process"
