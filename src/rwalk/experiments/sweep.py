"""Which runs a sweep is made of: a grid over benchmarks, methods and settings, as a validated object for a file."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rwalk.errors import closest
from rwalk.experiments.comparison import MOST_RUNS, Seeds, as_seeds
from rwalk.experiments.loading import build_spec, explain, flat, merged, nested, read_yaml, repeated, shared_by, short
from rwalk.experiments.methods import METHODS, is_strength
from rwalk.experiments.spec import RunSpec

__all__ = ["STRENGTH", "Sweep", "load_sweep"]

#: In a grid: the strength of whichever method it is (``Method.strength``); a method that has none runs without.
STRENGTH = "lambda"
Values = dict[str, Any]


class Sweep(BaseModel):
    """Every method with every combination of a grid and every seed.

    Attributes:
        seeds: Seeds, or how many: 5 is 0 to 4.
        base: What the runs share: a spec without its seed.
        grid: Values by key, for all methods: ``benchmark``, any key of a spec (``rwalk.delta_t`` reaches into
            ``rwalk``), or ``lambda``, the strength of each method that has one.
        methods: Names, or names with a grid of their own.
        intransigence: Also train the joint references (each once, and kept).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: Seeds = (0, 1, 2, 3, 4)
    base: Values = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    methods: dict[str, dict[str, list[Any]]] = Field(min_length=1)
    intransigence: bool = False

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_or_list(cls, value: Any) -> Any:
        return as_seeds(value)

    @field_validator("grid", mode="before")
    @classmethod
    def _values_to_try(cls, value: Any) -> Any:
        return _as_grid(value, "grid")

    @field_validator("methods", mode="before")
    @classmethod
    def _names_or_grids(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list):
            value = {str(name): {} for name in value}
        if not isinstance(value, Mapping):
            raise ValueError(f"methods={short(value)}: expected names, or names with a grid each")
        for name in value:
            if name not in METHODS:
                raise ValueError(
                    f"unknown method {short(name)!r}{closest(name, METHODS)}: choose one of {', '.join(METHODS)}"
                )
        return {str(name): _as_grid(grid or {}, f"methods.{name}") for name, grid in value.items()}

    @model_validator(mode="after")
    def _each_said_once(self) -> Sweep:
        for place, settings in {"base": self.base, "grid": self.grid, **self.methods}.items():
            if "seed" in settings:
                raise ValueError(
                    f"{place}: seed={short(settings['seed'])}: each run has every seed; give seeds beside it"
                )
            if "method" in settings:
                raise ValueError(f"{place}: method={short(settings['method'])}: name methods under 'methods'")
        if STRENGTH in self.base:
            raise ValueError(f"base: lambda={short(self.base[STRENGTH])}: give it in grid, or under methods")
        grids = ({**self.grid, **own} for own in self.methods.values())
        count = len(self.seeds) * sum(prod(len(values) for values in grid.values()) for grid in grids)
        if count > MOST_RUNS:
            raise ValueError(f"{count} runs: expected at most {MOST_RUNS}")
        return self

    def specs(self) -> dict[str, RunSpec]:
        """A spec for each combination, labelled by what varies.

        Raises:
            ValueError: One is not valid, or two have one label; the message names it.
        """
        found: dict[str, RunSpec] = {}
        base = shared_by([METHODS[name] for name in self.methods], self.base)
        for name, own in self.methods.items():
            grid = {**self.grid, **own}
            if STRENGTH in grid:
                values, key = grid.pop(STRENGTH), METHODS[name].strength
                if key is None and STRENGTH in own:
                    raise ValueError(f"methods.{name}: lambda={short(values)}: this method has no strength")
                if key is not None and key in grid:
                    raise ValueError(
                        f"methods.{name}: lambda={short(values)} and {key}={short(grid[key])} are one setting: give "
                        "one of them"
                    )
                grid |= {} if key is None else {key: values}
            for combination in product(*grid.values()):
                settings = dict(zip(grid, combination, strict=True))
                label = ", ".join([name, *(_said(key, settings[key]) for key in grid if len(grid[key]) > 1)])
                if label in found:
                    raise ValueError(f"two runs are called {short(label)!r}: give values that differ in six digits")
                try:
                    found[label] = build_spec(merged(merged(base[name], {"method": name}), nested(settings)))
                except ValueError as error:
                    raise ValueError(f"run {short(label)!r}: {error}") from None
        return found


def load_sweep(source: str | Path | Mapping[str, Any], **changes: Any) -> Sweep:
    """A sweep from a YAML file, or from plain values.

    Args:
        source: The file, or its content.
        changes: What replaces the content's values; None leaves them, ``base`` is merged key by key.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not YAML, not a sweep, or a change of ``base`` that a grid gives values for; one line that names
            the key and the value.
    """
    values = dict(source) if isinstance(source, Mapping) else read_yaml(source)
    given = {name: value for name, value in changes.items() if value is not None}
    if isinstance(values.get("base"), Mapping) and "base" in given:
        given["base"] = merged(values["base"], given["base"])
    try:
        sweep = Sweep(**merged(values, given))
    except ValidationError as error:
        raise ValueError(explain(error, Sweep)) from None
    _refuse_ignored(sweep, changes.get("base") or {})
    sweep.specs()
    return sweep


def _refuse_ignored(sweep: Sweep, changes: Mapping[str, Any]) -> None:
    """Changes for all runs that a grid says otherwise."""
    for key, value in flat(changes).items():
        for name, own in sweep.methods.items():
            grid = {**sweep.grid, **own}
            tried = key if key in grid else STRENGTH if STRENGTH in grid and key == METHODS[name].strength else None
            if tried is not None:
                where = f"methods.{name}" if tried in own else "grid"
                raise ValueError(
                    f"{key}={short(value)} for all runs: {where} gives {tried}={short(grid[tried])}; change it there"
                )


def _as_grid(value: Any, where: str) -> dict[str, list[Any]]:
    """Values by key; a single one stands for itself."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}={short(value)}: expected keys with values to try, such as 'lambda: [1, 10]'")
    grid = {str(key): values if isinstance(values, list) else [values] for key, values in value.items()}
    for key, values in grid.items():
        if not values:
            raise ValueError(f"{where}.{key}: no values to try")
        if twice := repeated(values):
            raise ValueError(
                f"{where}.{key}={short(values)}: expected different values; {short(twice[0])} is one of the others"
            )
    return grid


def _said(key: str, value: Any) -> str:
    """A setting in a label: a benchmark by its name, λ as such."""
    if key == "benchmark":
        return str(value)
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    return f"λ {shown}" if is_strength(key) else f"{key.rpartition('.')[2]} {shown}"
