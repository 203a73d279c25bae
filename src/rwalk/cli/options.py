"""Settings written as ``KEY=VALUE`` on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

__all__ = ["counts", "settings", "values"]


def settings(entries: Sequence[str]) -> dict[str, Any]:
    """``key=value`` entries as settings; ``rwalk.delta_t=5`` reaches into ``rwalk``.

    Raises:
        ValueError: An entry has another form.

    Example:
        >>> settings(["epochs=2", "rwalk.delta_t=5", "lr=1e-3"])
        {'epochs': 2, 'rwalk': {'delta_t': 5}, 'lr': 0.001}
    """
    found: dict[str, Any] = {}
    for entry in entries:
        key, equals, text = entry.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {entry!r}: expected KEY=VALUE, such as epochs=2 or rwalk.delta_t=5")
        outer, _, inner = key.partition(".")
        if inner:
            found.setdefault(outer, {})[inner] = _value(text)
        else:
            found[outer] = _value(text)
    return found


def values(entries: Sequence[str]) -> dict[str, list[Any]]:
    """``key=a,b,c`` entries as values to try.

    Raises:
        ValueError: An entry has another form.

    Example:
        >>> values(["rwalk.ewc_lambda=1,10", "sampler=uniform,entropy"])
        {'rwalk.ewc_lambda': [1, 10], 'sampler': ['uniform', 'entropy']}
    """
    found = {}
    for entry in entries:
        key, equals, text = entry.partition("=")
        if not equals or not key or not text:
            raise ValueError(f"--grid {entry!r}: expected KEY=A,B,C, such as rwalk.ewc_lambda=0.1,1,10")
        found[key] = [_value(part) for part in text.split(",")]
    return found


def counts(text: str) -> list[int]:
    """Numbers of exemplars with commas between.

    Raises:
        ValueError: They are no whole numbers ≥ 0.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise ValueError(f"--exemplars {text!r}: expected whole numbers ≥ 0 with commas between, such as 0,10")
    return [int(part) for part in parts]


def _value(text: str) -> Any:
    """A value as YAML reads it, and ``1e-3`` as the number that it is."""
    parsed = yaml.safe_load(text)
    if isinstance(parsed, str):
        try:
            return float(parsed)
        except ValueError:
            return parsed
    return parsed
