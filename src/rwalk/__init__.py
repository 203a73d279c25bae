"""Riemannian Walk for PyTorch: keep what a network has learned while it learns something new."""

from typing import TYPE_CHECKING, Any

from rwalk.core import RWalk, RWalkConfig, inspect_state
from rwalk.errors import DataUnavailableError, MissingExtraError, RWalkError, StateError

__version__ = "0.1.0"

__all__ = [
    "DataUnavailableError",
    "MissingExtraError",
    "RWalk",
    "RWalkConfig",
    "RWalkError",
    "RWalkPlugin",
    "StateError",
    "__version__",
    "choose_lambda",
    "inspect_state",
]

if TYPE_CHECKING:
    from rwalk.core.choosing import choose_lambda
    from rwalk.training import RWalkPlugin
else:

    def __getattr__(name: str) -> Any:
        """``RWalkPlugin`` brings the training loop along, so it is imported when it is first asked for."""
        if name == "choose_lambda":
            from rwalk.core.choosing import choose_lambda

            return choose_lambda
        if name != "RWalkPlugin":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from rwalk.training import RWalkPlugin

        return RWalkPlugin


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
