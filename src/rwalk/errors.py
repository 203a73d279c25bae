"""What goes wrong, in rwalk's own words.

Bad input (a value outside its range, a wrong type) raises ``ValueError`` or ``TypeError``; a saved state that cannot be
gone on from, whatever is wrong with it, ``StateError``, which is a ``ValueError``. The other classes here are for
everything else: calls in the wrong order, things missing on this machine.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["CheckpointError", "DataUnavailableError", "MissingExtraError", "RWalkError", "StateError", "closest"]


def closest(name: object, known: Iterable[str]) -> str:
    """What to add to a message about an unknown name: the known one that it is nearest to, or nothing.

    Example:
        >>> closest("ewc", ["pi", "ewc++"]), closest("learning", ["pi"])
        (" (did you mean 'ewc++'?)", '')
    """
    found = get_close_matches(str(name)[:100], list(known), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


class RWalkError(RuntimeError):
    """rwalk was used in a way that cannot give a correct result."""


class CheckpointError(ValueError):
    """A checkpoint or a stored result is damaged, of another version, or of something else than what goes on from it.

    It is the one error of reading such a file; what could not be read or written at all is an ``OSError``.
    """


class StateError(ValueError):
    """A state file or state dict is damaged, of a newer version, not rwalk's, or does not fit the model.

    Whatever was to be loaded, nothing has changed. A file that is not there or cannot be read is an ``OSError``.
    """


class DataUnavailableError(RWalkError):
    """A benchmark's data is neither on this machine nor within its reach."""


class MissingExtraError(RWalkError, ImportError):
    """An optional dependency is not installed.

    Args:
        feature: What needs the dependency, for the message.
        extra: The extra of this package that brings it.
        cause: The import error itself.
    """

    def __init__(self, feature: str, extra: str, cause: ImportError) -> None:
        super().__init__(f"{feature} needs {cause.name or cause}; install it with: pip install 'rwalk[{extra}]'")
