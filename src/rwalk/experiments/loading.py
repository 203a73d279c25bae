"""Specs from files and options, with errors of one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from rwalk.experiments.spec import RunSpec

__all__ = ["build_spec", "explain", "load_spec", "merged", "numbers", "read_yaml"]


def load_spec(path: str | Path | None, /, **overrides: Any) -> RunSpec:
    """Read a spec from a YAML file, from options, or both.

    Args:
        path: The file; its keys are ``RunSpec``'s attributes. None: everything comes from ``overrides``.
        overrides: Values that replace the file's; None leaves them. Dictionaries (``rwalk``, ``options``,
            ``model_options``) are merged key by key.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not YAML, or not a spec; one line that names the key and the value.
    """
    return build_spec({} if path is None else read_yaml(path), **overrides)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not YAML, or not keys and values.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no spec file at {path}{' (it is a folder)' if Path(path).is_dir() else ''}")
    try:
        values = numbers(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"{path}: expected keys and values, such as 'benchmark: split-digits'")
    return values


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with changes; dictionaries in both (``rwalk``, ``options``, …) are merged key by key.

    Example:
        >>> merged({"lr": 0.1, "rwalk": {"delta_t": 5}}, {"lr": 0.2, "rwalk": {"ewc_lambda": 1.0}})
        {'lr': 0.2, 'rwalk': {'delta_t': 5, 'ewc_lambda': 1.0}}
    """
    result = {**base, **changes}
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping):
            result[key] = {**base[key], **value}
    return result


def build_spec(values: Mapping[str, Any], /, **overrides: Any) -> RunSpec:
    """A spec from plain values.

    Raises:
        ValueError: A value is missing, unknown or out of range.
    """
    given = {key: value for key, value in overrides.items() if value is not None and value != {}}
    try:
        return RunSpec(**merged(values, given))
    except ValidationError as error:
        raise ValueError(explain(error, RunSpec)) from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that is wrong, in one line that names it."""
    first = error.errors()[0]
    key, *inside = first["loc"] or ("",)
    if model is RunSpec:  # what else stands there is pydantic's names of alternatives
        inside = [part for part in inside if isinstance(part, int)]
    where = ".".join(str(part) for part in (key, *inside))
    kind = "spec" if model is RunSpec else model.__name__.lower()
    if first["type"] == "missing":
        way_out = "name one, as an option or in a spec file; `rwalk list` shows them"
        return f"no {where} given: {way_out if model is RunSpec else f'a {kind} needs it'}"
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}: a {kind} has {', '.join(model.model_fields)}"
    if first["type"] == "value_error":  # our own: it names the value already
        return str(first["msg"]).removeprefix("Value error, ")
    return f"{where}={first['input']!r}: {first['msg']}"


def numbers(value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as text, because it has no dot; take it as the number that it is."""
    if isinstance(value, dict):
        return {key: numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [numbers(entry) for entry in value]
    return float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value) else value
