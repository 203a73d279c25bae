"""Which runs are compared, as a validated object that a file can hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rwalk.experiments.loading import build_spec, explain, merged, read_yaml, shared_by, short
from rwalk.experiments.methods import METHODS
from rwalk.experiments.spec import RunSpec

__all__ = ["Comparison", "build_comparison", "load_comparison"]

MOST_SEEDS = MOST_RUNS = 10_000
Seeds = tuple[Annotated[int, Field(ge=0, lt=2**63)], ...]


def as_seeds(value: Any) -> Any:
    """Seeds as they are given, or how many."""
    if isinstance(value, bool):
        raise ValueError(f"seeds={value}: expected seeds, or how many")
    if isinstance(value, int):
        if not 1 <= value <= MOST_SEEDS:
            raise ValueError(f"seeds={short(value)}: expected {'at least 1' if value < 1 else f'at most {MOST_SEEDS}'}")
        return tuple(range(value))
    if not isinstance(value, list | tuple) or any(isinstance(seed, bool) for seed in value):
        raise ValueError(f"seeds={short(repr(value))}: expected whole numbers in a list, or how many")
    if not value or len(set(map(str, value))) < len(value):
        raise ValueError(f"seeds={short(list(value))}: expected different seeds, at least one")
    return value


class Comparison(BaseModel):
    """Runs side by side, each with every seed.

    Attributes:
        seeds: Seeds, or how many: 5 is 0 to 4.
        base: What the runs share: a spec without its seed.
        runs: By label, in what each differs from ``base``. Dictionaries (``rwalk``, ``options``, …) are merged key by
            key.
        against: The label that all others are compared with, seed by seed; the last one if None.
        intransigence: Also train the joint reference (once, and kept).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: Seeds = (0, 1, 2, 3, 4)
    base: dict[str, Any] = Field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = Field(min_length=1, max_length=MOST_RUNS)
    against: str | None = None
    intransigence: bool = True

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_or_list(cls, value: Any) -> Any:
        return as_seeds(value)

    @model_validator(mode="after")
    def _no_seed_of_their_own(self) -> Comparison:
        for settings in (self.base, *self.runs.values()):
            if "seed" in settings:
                raise ValueError(f"seed={settings['seed']!r}: each run has every seed; give seeds beside base and runs")
        return self

    @model_validator(mode="after")
    def _label_exists(self) -> Comparison:
        if self.against is not None and self.against not in self.runs:
            raise ValueError(f"against={short(repr(self.against))}: choose one of the runs {', '.join(self.runs)}")
        return self

    def specs(self) -> dict[str, RunSpec]:
        """A spec for each label.

        Raises:
            ValueError: One is not valid; the message names its label.
        """
        used = [METHODS.get(str({**self.base, **run}.get("method"))) for run in self.runs.values()]
        bases = shared_by([method for method in used if method is not None], self.base)
        return {label: self._spec(label, bases) for label in self.runs}

    def _spec(self, label: str, bases: Mapping[str, Mapping[str, Any]]) -> RunSpec:
        try:
            method = str({**self.base, **self.runs[label]}.get("method"))
            return build_spec(merged(bases.get(method, self.base), self.runs[label]))
        except ValueError as error:
            raise ValueError(f"run {short(label)!r}: {error}") from None


def build_comparison(values: Mapping[str, Any]) -> Comparison:
    """A comparison from plain values.

    Raises:
        ValueError: A value is missing, unknown or out of range; one line that names it.
    """
    try:
        comparison = Comparison(**values)
    except ValidationError as error:
        raise ValueError(explain(error, Comparison)) from None
    comparison.specs()
    return comparison


def load_comparison(path: str | Path) -> Comparison:
    """A comparison from a YAML file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not YAML, or not a comparison.
    """
    return build_comparison(read_yaml(path))
