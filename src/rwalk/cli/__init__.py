"""The command ``rwalk``."""

from __future__ import annotations

import io
import sys
from typing import NoReturn

from rwalk.cli.signals import SignalledError, at_once, heeded, last_line
from rwalk.errors import MissingExtraError

__all__ = ["main"]

LONGEST = 480  # characters of an error, which fits on a screen; with what stands before it fewer than 500


def main() -> None:
    """Run the command line; an error is one line on standard error and a non-zero exit status.

    SIGTERM and SIGINT end it with the status 143 and 130: with a checkpoint, where one can be written.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and (stream.errors == "strict" or "utf" not in stream.encoding.lower()):
            stream.reconfigure(errors="replace")  # an encoding that has no λ shall not end a command
    try:
        with at_once():
            from rwalk.cli.commands import app
    except ImportError as error:
        _fail(MissingExtraError("the command rwalk", "cli", error))
    try:
        with heeded():
            app()
    except SignalledError as signalled:
        sys.stderr.write(last_line(signalled))
        raise
    except (ValueError, TypeError, OSError, RuntimeError, MemoryError) as error:  # torch's errors are RuntimeErrors
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    message = str(error).strip() or type(error).__name__
    line = "".join(sign if sign.isprintable() else "?" for sign in message.splitlines()[0])
    sys.stderr.write(f"rwalk: error: {line if len(line) <= LONGEST else line[: LONGEST - 1] + '…'}\n")
    sys.exit(1)
