"""Files that are there whole or not at all, in folders that are made for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from rwalk.core.replacing import replacing

__all__ = ["writing_whole"]


@contextmanager
def writing_whole(target: Path) -> Iterator[BinaryIO]:
    """A file to write to, that takes the target's place when the block ends without an error; its folder is made.

    Args:
        target: Where to.

    Raises:
        OSError: It cannot be written; the message names it, and what was there before is as it was.
    """
    missing = [place for place in target.parents if not place.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        place = next(place for place in target.parents if place.exists())
        raise NotADirectoryError(f"{target} cannot be written: {place} is no folder; choose another place") from None
    try:
        with replacing(target) as file:
            yield file
    except BaseException:
        for place in missing:
            with suppress(OSError):  # it holds something
                place.rmdir()
        raise
