"""Specs from files and options, with errors of one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from rwalk.experiments.spec import RunSpec

__all__ = ["build_spec", "explain", "load_spec", "read_yaml"]


def load_spec(path: str | Path | None, **overrides: Any) -> RunSpec:
    """Read a spec from a YAML file, from options, or both.

    Args:
        path: The file; its keys are ``RunSpec``'s attributes. None: everything comes from ``overrides``.
        overrides: Values that replace the file's; None leaves them. ``rwalk`` settings are merged one by one.

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
        values = _numbers(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"{path}: expected keys and values, such as 'benchmark: split-digits'")
    return values


def build_spec(values: dict[str, Any], **overrides: Any) -> RunSpec:
    """A spec from plain values.

    Raises:
        ValueError: A value is missing, unknown or out of range.
    """
    merged = {**values, **{key: value for key, value in overrides.items() if value not in (None, {})}}
    if isinstance(values.get("rwalk"), dict):
        merged["rwalk"] = {**values["rwalk"], **(overrides.get("rwalk") or {})}
    try:
        return RunSpec(**merged)
    except ValidationError as error:
        raise ValueError(explain(error, RunSpec)) from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that is wrong, in one line that names it."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"no {where} given: name one, as an option or in a spec file; `rwalk list` shows them"
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}: a spec has {', '.join(model.model_fields)}"
    if first["type"] == "value_error":  # our own: it names the value already
        return str(first["msg"]).removeprefix("Value error, ")
    return f"{where}={first['input']!r}: {first['msg']}"


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads ``1e-3`` as text, because it has no dot; take it as the number that it is."""
    if isinstance(value, dict):
        return {key: _numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_numbers(entry) for entry in value]
    return float(value) if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value) else value
