"""A user's own function by its import path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["import_function"]


def import_function(path: str) -> Callable[..., Any]:
    """The function at ``package.module:function``. Modules in the current folder are found too.

    Raises:
        ValueError: Not such a path, nothing there, or not something to call.

    Example:
        >>> import_function("math:prod")([2, 3])
        6
        >>> import_function("math:product")
        Traceback (most recent call last):
        ...
        ValueError: 'math:product': module math has no 'product'
    """
    module_name, _, name = path.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), name]):
        raise ValueError(f"{path!r}: expected an import path 'package.module:function'")
    with _current_folder_last():
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise ValueError(f"{path!r}: cannot import {module_name} ({error})") from error
    if not hasattr(module, name):
        raise ValueError(f"{path!r}: module {module_name} has no {name!r}")
    found = getattr(module, name)
    if not callable(found):
        raise ValueError(f"{path!r} is a {type(found).__name__}: expected a function that builds a network")
    return found  # type: ignore[no-any-return]


@contextmanager
def _current_folder_last() -> Iterator[None]:
    """A command, unlike ``python -m``, does not look for modules in the folder where it was called."""
    before, here = list(sys.path), str(Path.cwd())
    if here not in before:
        sys.path.append(here)
    try:
        yield
    finally:
        sys.path[:] = before
