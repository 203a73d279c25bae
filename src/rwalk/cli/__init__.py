"""The command ``rwalk``."""

from __future__ import annotations

import sys
from typing import NoReturn

from rwalk.errors import MissingExtraError

__all__ = ["main"]


def main() -> None:
    """Run the command line; an error is one line on standard error and a non-zero exit status."""
    try:
        from rwalk.cli.commands import app
    except ImportError as error:
        _fail(MissingExtraError("the command rwalk", "cli", error))
    try:
        app()
    except (ValueError, TypeError, OSError, RuntimeError, MemoryError) as error:  # torch's errors are RuntimeErrors
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    message = str(error).strip() or type(error).__name__
    sys.stderr.write(f"rwalk: error: {message.splitlines()[0]}\n")
    sys.exit(1)
