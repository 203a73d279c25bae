"""Specs from files and options, with errors of one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rwalk.errors import closest
from rwalk.experiments.methods import METHODS, Method
from rwalk.experiments.spec import RunSpec
from rwalk.experiments.yaml_files import LARGEST, plain_yaml

__all__ = [
    "build_spec",
    "differing",
    "explain",
    "flat",
    "load_spec",
    "merged",
    "nested",
    "read_yaml",
    "repeated",
    "shared_by",
    "short",
]


LONGEST = 400  # characters of a message


def load_spec(path: str | Path | None, /, **overrides: Any) -> RunSpec:
    """Read a spec from a YAML file, from options, or both.

    Args:
        path: The file; its keys are ``RunSpec``'s attributes. None: everything comes from ``overrides``.
        overrides: Values that replace the file's; None leaves them. Dictionaries (``rwalk``, ``options``,
            ``model_options``) are merged key by key. A method that is not made of the core leaves the file's ``rwalk``
            out.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not YAML, or not a spec; one line that names the key and the value.
    """
    values = {} if path is None else read_yaml(path)
    other = METHODS.get(str(overrides.get("method")))
    if other is not None and not other.reads_rwalk:  # the file's settings of RWalk are for the file's method
        values.pop("rwalk", None)
    return build_spec(values, **overrides)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not YAML, or not keys and values.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no spec file at {path}{' (it is a folder)' if Path(path).is_dir() else ''}")
    try:
        if Path(path).stat().st_size > 4 * LARGEST:
            raise ValueError(f"more than {4 * LARGEST} bytes")
        values = plain_yaml(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())[:LONGEST]}") from None
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


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key as a spec has them.

    Example:
        >>> nested({"lr": 0.1, "rwalk.delta_t": 5, "rwalk.ewc_lambda": 1.0})
        {'lr': 0.1, 'rwalk': {'delta_t': 5, 'ewc_lambda': 1.0}}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        outer, _, inner = key.partition(".")
        found = merged(found, {outer: {inner: value} if inner else value})
    return found


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The opposite of ``nested``.

    Example:
        >>> flat({"lr": 0.1, "rwalk": {"delta_t": 5, "ewc_lambda": 1.0}})
        {'lr': 0.1, 'rwalk.delta_t': 5, 'rwalk.ewc_lambda': 1.0}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{inner}": of_inner for inner, of_inner in value.items()}
        else:
            found[key] = value
    return found


def differing(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Keys in which settings that have them differ, in their order.

    Example:
        >>> differing([{"lr": 0.1, "epochs": 1}, {"lr": 0.2, "epochs": 1, "rwalk.delta_t": 5}])
        ['lr']
    """
    values: dict[str, list[Any]] = {}
    for each in settings:
        for key, value in each.items():
            values.setdefault(key, []).append(value)
    return [key for key, known in values.items() if any(value != known[0] for value in known)]


def repeated(values: Iterable[Any]) -> list[Any]:
    """Those of some values that stand there before: 1 and 1.0 are the same setting, 1 and true are not.

    Example:
        >>> repeated([1, 3.0, 1.0]), repeated([[8], [8.0, 4]]), repeated([1, True, "1"])
        ([1.0], [], [])
    """
    known: set[Any] = set()
    found = []
    for value in values:
        told = _told_apart(value)
        if told in known:
            found.append(value)
        known.add(told)
    return found


def _told_apart(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_told_apart, value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (value,)
    return repr(value)


def shared_by(methods: Sequence[Method], base: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For each method, what of a shared base it reads: settings of RWalk are for methods made of the core.

    Raises:
        ValueError: The base has such settings, and none of the methods reads them.
    """
    if base.get("rwalk") and methods and not any(method.reads_rwalk for method in methods):
        settings = base["rwalk"]
        key, value = next(iter(settings.items())) if isinstance(settings, Mapping) else ("", settings)
        where = f"rwalk.{key}" if key else "rwalk"
        raise ValueError(f"{where}={short(value)}: none of {', '.join(m.name for m in methods)} reads it")
    bare = {key: value for key, value in base.items() if key != "rwalk"}
    return {method.name: dict(base) if method.reads_rwalk else bare for method in methods}


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
    return _explained(error, model)[: 5 * LONGEST]  # which may list all names that are known


def _explained(error: ValidationError, model: type[BaseModel]) -> str:
    first, *others = error.errors()
    if first["type"] == "missing":  # which a slip of the pen may be the reason of
        first = next((other for other in others if other["type"] == "extra_forbidden"), first)
    key, *inside = first["loc"] or ("",)
    if model is RunSpec:  # what else stands there is pydantic's names of alternatives
        inside = [part for part in inside if isinstance(part, int)]
    where = ".".join(short(part) for part in (key, *inside))
    kind = "spec" if model is RunSpec else model.__name__.lower()
    if first["type"] == "missing":
        way_out = "name one, as an option or in a spec file; `rwalk list` shows them"
        return f"no {where} given: {way_out if model is RunSpec else f'a {kind} needs it'}"
    if first["type"] == "extra_forbidden":
        return (
            f"unknown key {where!r}{closest(where, model.model_fields)}: a {kind} has {', '.join(model.model_fields)}"
        )
    if first["type"] == "string_type":
        if inside and inside[-1] == "[key]":
            return f"{key}: the name {short(repr(first['input']))} is no text; put it in quotes"
        return f"{where}={short(repr(first['input']))}: expected text; put it in quotes, as YAML reads it"
    if first["type"] == "value_error":  # our own: it names the value already
        return str(first["msg"]).removeprefix("Value error, ")
    return f"{where}={short(repr(first['input']))}: {first['msg']}"


def short(text: object) -> str:
    """Text of a file in a message: its beginning, in one line.

    Example:
        >>> len(short("x" * 1000)), short("a" + chr(27))
        (100, 'a?')
    """
    line = "".join(sign if sign.isprintable() else "?" for sign in str(text)[:101])
    return line if len(line) <= 100 else f"{line[:99]}…"
