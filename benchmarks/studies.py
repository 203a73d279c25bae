"""The command line of a study: where its results go, or a table of what is stored."""

from __future__ import annotations

import datetime
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rwalk.experiments.results import versions

__all__ = ["begun", "command_line"]


def command_line(parser: ArgumentParser, markdown: Callable[[dict[str, Any]], str]) -> Namespace:
    """The options, ``json`` among them, a file to write to or None.

    With ``--table FILE`` the process prints a table of what is stored there, and ends.
    """
    parser.add_argument("--json", type=Path, metavar="FILE", help="where results go")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print what is stored there as a table; run nothing")
    options = parser.parse_args()
    if options.table is not None:
        print(markdown(json.loads(options.table.read_text(encoding="utf-8"))))
        raise SystemExit(0)
    return options


def begun() -> dict[str, Any]:
    """What all results begin with: the day, and the versions of Python and packages."""
    return {"date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(), "versions": versions()}
