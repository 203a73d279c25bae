"""Methods by name. Each file in this folder describes one, or a family of them, in its ``METHODS``."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from rwalk.experiments.methods.method import Method

__all__ = ["METHODS", "Method", "is_strength"]


def _found() -> dict[str, Method]:
    described: list[Method] = []
    for module in iter_modules(__path__):
        described += getattr(import_module(f"{__name__}.{module.name}"), "METHODS", ())
    return {method.name: method for method in sorted(described, key=lambda method: (method.rank, method.name))}


METHODS: dict[str, Method] = _found()


def is_strength(key: str) -> bool:
    """Whether a key of a spec holds the strength of some method.

    Example:
        >>> is_strength("options.strength"), is_strength("rwalk.delta_t")
        (True, False)
    """
    return any(method.strength == key for method in METHODS.values())
