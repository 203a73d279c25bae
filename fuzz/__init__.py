"""Files and dictionaries that are not what they should be: mutated at random, read, and watched.

A target is what rwalk reads. Its function gets an empty folder, prepares there what it needs, and returns a function
that carries out one case: it mutates (with the random generator it is given, by nothing else, so that a case can be
repeated), reads, and returns in a word or two how that ended. It raises ``FindingError`` where what was read is wrong
and nobody said so, or where a refusal has left a trace. Any other exception that leaves it is a finding too, so it
catches those that are documented; so are a crash of the process and a case that takes longer than two seconds.

``python -m fuzz --cases 20000`` runs them all, ``--target NAME`` one, ``--only I`` a single case.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from random import Random

__all__ = ["TARGETS", "Case", "FindingError", "prepared"]

Case = Callable[[Random], str]

#: What is read, and where the function is that prepares it.
TARGETS = {
    "state-files": "fuzz.states:files",
    "state-files-resealed": "fuzz.states:resealed_files",
    "state-files-schema-1": "fuzz.states:old_files",
    "state-dicts": "fuzz.states:dictionaries",
    "checkpoints": "fuzz.runs:checkpoints",
    "checkpoints-resealed": "fuzz.runs:resealed_checkpoints",
    "results": "fuzz.runs:results",
    "specs": "fuzz.runs:specs",
}


class FindingError(Exception):
    """Something that must not happen."""


def prepared(name: str, folder: Path) -> Case:
    """A target's function for single cases."""
    module, _, function = TARGETS[name].partition(":")
    case: Case = getattr(import_module(module), function)(folder)
    return case
