"""A file is replaced at once or not at all, and is on the disk when that is done."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import BinaryIO
from uuid import uuid4

__all__ = ["dead", "fsync_folder", "mark", "naming", "remove_leftovers", "replacing"]

#: Says which process of which machine something belongs to: machine, number, and when it began.
MARK = re.compile(r"(?P<machine>[0-9a-f]{8})-(?P<pid>\d{1,10})-(?P<began>\d{1,20})")
A_DAY = 24 * 3600.0


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write to, that takes the path's place when the block ends without an error.

    It is written under another name in the same folder, brought to the disk, and renamed. Its permissions are what the
    user's umask leaves. A link stays, and the file that it points to is replaced. What processes that are no more have
    left behind for this path is removed.

    Args:
        path: Where to.

    Raises:
        OSError: It cannot be written; the message names it, and the old file is as it was.
    """
    target, path = Path(path), Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it")
    remove_leftovers(path)
    temporary = path.with_name(f"{_prefix(path)}{mark()}-{uuid4().hex[:8]}.writing")
    try:
        with naming(target), temporary.open("xb") as file:
            with _syncing(file.fileno()):
                yield file
                file.flush()
            os.fsync(file.fileno())
        with naming(target):
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """Inside, an error of the system is told with this file's name."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # its message says it all
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


@contextmanager
def _syncing(descriptor: int) -> Iterator[None]:
    """Have what is written brought to the disk while more is being written: at the end little is left to wait for."""
    done, errors = Event(), list[OSError]()

    def sync() -> None:
        try:
            while not done.wait(0.02):
                os.fsync(descriptor)
        except OSError as error:  # which the system tells once
            errors.append(error)

    thread = Thread(target=sync, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if errors:
        raise errors[0]


def remove_leftovers(path: Path) -> None:
    """Remove what was being written in a path's place by processes that are no more."""
    for found in path.parent.glob(".*.writing"):
        if found.name.startswith(_prefix(path)) and dead(found, found.name[len(_prefix(path)) :]):
            with suppress(OSError):
                found.unlink()


def mark() -> str:
    """What a file's name tells of the process that it belongs to."""
    return f"{_machine()}-{os.getpid()}-{_began(os.getpid())}"


def dead(path: Path, marked: str) -> bool:
    """Whether the process whose mark a name begins with is no more.

    One of another machine counts as that after a week, and one without a mark after a day.
    """
    found = MARK.match(marked)
    if found is None or found["machine"] != _machine():
        with suppress(OSError):
            return time.time() - path.lstat().st_mtime > (A_DAY if found is None else 7 * A_DAY)
        return False
    pid = int(found["pid"])
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # another user's
        pass
    return _began(pid) != int(found["began"])


def fsync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk, where the system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _prefix(path: Path) -> str:
    return f".{path.name[:80]}."


def _machine() -> str:
    return hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()


def _began(pid: int) -> int:
    """When a process began, in the system's own count: numbers are given again. 0 where that is not told."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(told.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
