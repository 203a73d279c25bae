"""Options that several commands have; settings written as ``KEY=VALUE``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rwalk.experiments.loading import merged, nested
from rwalk.experiments.suggesting import RANGE, refuse_repeated
from rwalk.experiments.yaml_files import plain_yaml

__all__ = [
    "AllJobs",
    "AsJson",
    "Every",
    "Jobs",
    "Out",
    "counts",
    "examples",
    "names",
    "refuse_inputs",
    "refuse_twice",
    "settings",
    "values",
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def _processes(value: int) -> int:
    if value < 1 and value != -1:
        raise ValueError(f"--jobs {value}: expected how many processes, or -1 for one per core")
    return value


Jobs = Annotated[int, typer.Option(callback=_processes, help="Processes; -1 for one per core.")]
AllJobs = Annotated[
    int, typer.Option("--jobs", callback=_processes, help="Processes; -1 for one per core, or all of the cluster.")
]
Every = Annotated[int, typer.Option(min=0, help="Write a checkpoint of each run every so many batches; 0 for none.")]
Out = Annotated[Path, typer.Option(help="Folder for results; runs finished there are kept, others go on.")]


def examples(*lines: str) -> str:
    """What stands below the help of a command."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def refuse_inputs(option: str, target: Path, inputs: Iterable[Path | None]) -> None:
    """Refuse to write over a file that is read.

    Args:
        option: Where the target was named.
        target: What would be written.
        inputs: What is read; None stands for an option that was not given.

    Raises:
        ValueError: The target is one of them, by whichever path.
    """
    if not target.exists():
        return
    for read in inputs:
        if read is not None and read.exists() and target.samefile(read):
            raise ValueError(f"{option} {target}: this file is read here and would be lost: name another one")


def refuse_twice(settings: Mapping[str, Any], **options: Any) -> None:
    """Refuse a ``--set`` of what an option says otherwise, so that neither is lost without a word.

    Args:
        settings: Of ``settings``.
        options: By name; None stands for one that was not given.

    Raises:
        ValueError: One says another value.
    """
    for name, value in options.items():
        if value is not None and name in settings and settings[name] != value:
            raise ValueError(f"--set {name}={settings[name]}: --{name} {value} says it already: give one of them")


def settings(entries: Sequence[str]) -> dict[str, Any]:
    """``key=value`` entries as settings; ``rwalk.delta_t=5`` reaches into ``rwalk``. The last for a key counts.

    Raises:
        ValueError: An entry has another form.

    Example:
        >>> settings(["epochs=9", "epochs=2", "rwalk.delta_t=5", "lr=1e-3"])
        {'epochs': 2, 'rwalk': {'delta_t': 5}, 'lr': 0.001}
    """
    found: dict[str, Any] = {}
    for entry in entries:
        key, equals, text = entry.partition("=")
        if not equals or not key:
            raise ValueError(f"--set {entry!r}: expected KEY=VALUE, such as epochs=2 or rwalk.delta_t=5")
        found = merged(found, nested({key: _value(f"--set {entry!r}", text)}))
    return found


def values(entries: Sequence[str]) -> dict[str, list[Any]]:
    """``key=a,b,c`` entries as values to try.

    Raises:
        ValueError: An entry has another form, or two have the same key.

    Example:
        >>> values(["rwalk.ewc_lambda=1,1e3", "sampler=uniform,entropy", "hidden=[8],[16,16]"])
        {'rwalk.ewc_lambda': [1, 1000.0], 'sampler': ['uniform', 'entropy'], 'hidden': [[8], [16, 16]]}
    """
    refuse_repeated(entries)
    found = {}
    for entry in entries:
        key, equals, text = entry.partition("=")
        if not equals or not key or not text:
            raise ValueError(f"--grid {entry!r}: expected KEY=A,B,C, such as rwalk.ewc_lambda=0.1,1,10")
        if RANGE.fullmatch(text):
            raise ValueError(f"--grid {entry!r}: ranges are for --search optuna; give values with commas between")
        found[key] = _value(f"--grid {entry!r}", f"[{text}]")
    return found


def counts(text: str) -> list[int]:
    """Numbers of exemplars with commas between.

    Raises:
        ValueError: They are no whole numbers ≥ 0, or one stands twice.
    """
    parts = names("--exemplars", text)
    if not all(re.fullmatch("[0-9]{1,10}", part) for part in parts):
        raise ValueError(f"--exemplars {text!r}: expected whole numbers ≥ 0 with commas between, such as 0,10")
    return [int(part) for part in names("--exemplars", ",".join(str(int(part)) for part in parts))]


def names(option: str, text: str) -> list[str]:
    """What stands between commas.

    Raises:
        ValueError: Something stands twice.
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if parts.count(part) > 1:
            raise ValueError(f"{option} {text!r}: {part} stands there twice: give each once")
    return parts


def _value(option: str, text: str) -> Any:
    """A value as YAML reads it, and ``1e-3`` as the number that it is."""
    try:
        return plain_yaml(text)
    except ValueError as error:
        raise ValueError(f"{option}: {text!r} is no value that YAML knows ({error})") from None
