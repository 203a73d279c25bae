"""The command ``rwalk``."""

from __future__ import annotations

import sys
from typing import NoReturn

from rwalk.errors import MissingExtraError, RWalkError

__all__ = ["main"]


def main() -> None:
    """Run the command line; an error is one line on standard error and a non-zero exit status."""
    try:
        from rwalk.cli.commands import app
    except ImportError as error:
        _fail(MissingExtraError("the command rwalk", "cli", error))
    try:
        app()
    except (RWalkError, ValueError, TypeError, OSError) as error:
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    sys.stderr.write(f"rwalk: error: {error}\n")
    sys.exit(1)
