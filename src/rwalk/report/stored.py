"""The summaries that commands store beside runs (comparison, tuning, reproduction), read with care."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rwalk.errors import CheckpointError
from rwalk.experiments.results import read_json

__all__ = ["StoredRow", "StoredSearch", "StoredSummary", "read_summary"]

Number = Annotated[float, Field(allow_inf_nan=False)]
Model = TypeVar("Model", bound=BaseModel)


class _Known(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class StoredDifference(_Known):
    """A paired difference."""

    mean: Number
    low: Number | None = None
    high: Number | None = None
    wins: int = 0
    pairs: int = 1


class StoredFigure(_Known):
    """A published figure."""

    value: Number
    deviation: Number | None = None


class StoredRow(_Known):
    """What became of a label."""

    label: str
    config: dict[str, Any] | None = None
    seeds: dict[int, dict[str, Number | None]] = {}
    errors: dict[str, str] = {}
    differences: dict[str, StoredDifference] = {}
    published: dict[str, StoredFigure] = {}
    tuned: bool | None = None


class StoredSearch(_Known):
    """How λ was looked for, task by task, with one seed."""

    config: dict[str, Any] = {}
    search: dict[str, int | Number] = {}
    trials: Annotated[list[list[tuple[Number, Number]]], Field(max_length=10_000)] = []
    plasticity: list[Number] = []
    strengths: list[Number] = []
    accuracy_matrix: list[list[Number | None]] | None = None
    seconds: Number = 0.0


class StoredSummary(_Known):
    """``comparison.json``, ``tuning.json``, ``sweep.json`` or ``TABLE.json``."""

    rows: Annotated[list[StoredRow], Field(max_length=10_000)] = []
    searches: dict[int, StoredSearch] = {}
    search: str | None = None
    plan: dict[str, Any] = {}
    sweep: dict[str, Any] | None = None
    against: str | None = None
    metric: str | None = None
    best: str | None = None
    table: str | None = None
    title: str | None = None
    source: str | None = None
    protocol: list[str] = []
    quick: bool = False
    seeds: list[int] = []
    date: str | None = None
    versions: dict[str, str] = {}
    wall_seconds: Number | None = None

    @property
    def kind(self) -> str:
        """Which of them."""
        if self.table is not None:
            return "reproduction"
        return "tuning" if self.best is not None else "comparison" if self.sweep is None else "sweep"


def read_summary(file: Path) -> StoredSummary:
    """A summary.

    Raises:
        CheckpointError: It is none.
        OSError: It cannot be read.
    """
    content = read_json(file)
    if not {"rows", "searches"} & set(content):
        raise CheckpointError(f"{file} is no summary of runs: it has no rows")
    try:
        return StoredSummary(**content)
    except (ValidationError, TypeError) as error:
        told = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file} is no summary of runs: {told}") from None
