"""Riemannian Walk for PyTorch: keep what a network has learned while it learns something new."""

from rwalk.core import RWalk, RWalkConfig, inspect_state
from rwalk.errors import DataUnavailableError, MissingExtraError, RWalkError

__version__ = "0.1.0"

__all__ = [
    "DataUnavailableError",
    "MissingExtraError",
    "RWalk",
    "RWalkConfig",
    "RWalkError",
    "__version__",
    "inspect_state",
]
