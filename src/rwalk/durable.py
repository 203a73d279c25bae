"""Files that are there whole or not at all, also after a power cut; and folders that one process holds at a time."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["FolderHeldError", "held", "write_whole"]

LOCK = ".lock"
LEFTOVER = re.compile(r"\.(?P<pid>\d+)\.[^.]+\.part$")


class FolderHeldError(OSError):
    """Another process works in this folder."""


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file by way of a temporary one beside it, which is brought to the disk and then takes its place.

    The file that was there stays as it is until then, and after any error. What a process that was killed has left of
    its temporary files is removed.

    Args:
        path: Where to. A link is followed; its folder is made if need be.
        content: The bytes.

    Returns:
        The path.

    Raises:
        OSError: It could not be written; nothing of it is left.
    """
    target = path.resolve() if path.is_symlink() else path
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.{os.getpid()}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)
    return path


@contextmanager
def held(folder: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Inside, no other process holds this folder. It is made if need be; made for nothing, it goes again.

    The lock is the operating system's and ends with the process, however that ends.

    Args:
        folder: The folder.
        wait: Seconds to wait for another process to leave it.

    Raises:
        FolderHeldError: Another process holds it; the message says which.
        OSError: Nothing can be written there.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path, until = folder / LOCK, time.monotonic() + wait
    handle = _lock(path)
    while handle is None and time.monotonic() < until:
        time.sleep(0.1)
        folder.mkdir(parents=True, exist_ok=True)
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
                raise BlockingIOError  # noqa: TRY301
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


def _remove_leftovers(target: Path) -> None:
    for other in target.parent.glob(f".{target.name}.*.part"):
        found = LEFTOVER.search(other.name)
        if found and not _lives(int(found["pid"])):
            other.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """A new name is on the disk only when its folder is; Windows has no such thing."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
