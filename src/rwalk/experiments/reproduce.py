"""Published tables, each as a comparison that can be run again, and what came of it beside what was published."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from rwalk.experiments.comparison import Comparison, merged
from rwalk.experiments.loading import explain
from rwalk.experiments.results import versions
from rwalk.experiments.summary import Row

__all__ = ["Table", "load_table", "report", "tables"]

Figure = float | tuple[float, float]


class Table(Comparison):
    """A published table.

    Attributes:
        title: What it shows.
        source: Where it was published.
        published: By label and metric, as fractions: a value, or a value and its standard deviation.
        protocol: What was done, what of it is not known of the original, and how that was chosen.
        quick: Changes for a run that is quick: ``seeds``, and of ``base``.
    """

    title: str
    source: str
    published: dict[str, dict[str, Figure]]
    protocol: tuple[str, ...] = ()
    quick: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _published_rows_are_run(self) -> Table:
        unknown = sorted(set(self.published) - set(self.runs))
        if unknown:
            raise ValueError(f"published figures of {unknown[0]!r}, which is not among the runs {', '.join(self.runs)}")
        return self


def tables() -> dict[str, str]:
    """Names of all tables, each with its title."""
    names = sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))
    return {name: load_table(name).title for name in names}


def load_table(name: str, *, quick: bool = False, seeds: int | None = None) -> Table:
    """A table by name.

    Args:
        name: One of ``tables()``.
        quick: With its changes for a quick run.
        seeds: How many seeds, if not the table's own number.

    Raises:
        ValueError: There is no such table (the known ones are listed).
    """
    file = _folder() / f"{name}.yaml"
    if not file.is_file():
        raise ValueError(f"unknown table {name!r}: choose one of {', '.join(tables())}")
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    if quick:
        changes = values.get("quick", {})
        values |= {"base": merged(values["base"], changes.get("base", {})), "seeds": changes.get("seeds", 1)}
    if seeds is not None:
        values["seeds"] = seeds
    try:
        return Table(**values)
    except ValidationError as error:
        raise ValueError(f"table {name}: {explain(error, Table)}") from None


def report(name: str, table: Table, rows: Sequence[Row], *, quick: bool, wall_seconds: float) -> dict[str, Any]:
    """What is stored of a reproduction: figures, specs, and how far they are from the published ones.

    Args:
        name: The table's name.
        table: The table.
        rows: What became of its runs.
        quick: Whether this was the quick version.
        wall_seconds: How long it took from the first run to the last, those found finished not counted.
    """
    return {
        "table": name,
        "title": table.title,
        "source": table.source,
        "protocol": list(table.protocol),
        "quick": quick,
        "seeds": list(table.seeds),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "versions": versions(),
        "wall_seconds": round(wall_seconds, 1),
        "rows": [row.to_dict() | {"published": _beside(table.published.get(row.label, {}), row)} for row in rows],
    }


def _beside(published: Mapping[str, Figure], row: Row) -> dict[str, Any]:
    beside = {}
    for metric, figure in published.items():
        value, deviation = figure if isinstance(figure, tuple) else (figure, None)
        ours = row.spread(metric)
        difference = None if ours is None else ours[0] - value
        beside[metric] = {"value": value, "deviation": deviation, "difference": difference}
    return beside


def _folder() -> Any:
    return files("rwalk.experiments") / "tables"
