"""Published tables, each as a comparison that can be run again, and what came of it beside what was published."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from rwalk.errors import closest
from rwalk.experiments.comparison import Comparison
from rwalk.experiments.loading import explain, merged, read_yaml
from rwalk.experiments.results import versions
from rwalk.experiments.summary import METRICS, Row

__all__ = ["Table", "command_of", "load_table", "report", "tables"]

Figure = float | tuple[float, float]


class Table(Comparison):
    """A published table.

    Attributes:
        title: What it shows.
        source: Where it was published.
        published: By label and metric, as fractions: a value, or a value and its standard deviation.
        protocol: What was done, what of it is not known of the original, and how that was chosen.
        quick: Changes for a run that is quick: ``seeds``, and of ``base``, also where a row has another value.
    """

    title: str
    source: str
    published: dict[str, dict[str, Figure]]
    protocol: tuple[str, ...] = ()
    quick: dict[str, Any] = Field(default_factory=dict)

    @field_validator("published")
    @classmethod
    def _fractions_of_known_metrics(cls, value: dict[str, dict[str, Figure]]) -> dict[str, dict[str, Figure]]:
        for label, figures in value.items():
            for metric, figure in figures.items():
                if metric not in METRICS:
                    raise ValueError(f"published {metric!r} of {label!r}: choose one of {', '.join(METRICS)}")
                if not all(-1 <= number <= 1 for number in (figure if isinstance(figure, tuple) else (figure,))):
                    raise ValueError(f"published {metric}={figure!r} of {label!r}: expected fractions, not per cent")
        return value

    @field_validator("quick")
    @classmethod
    def _known_changes(cls, value: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(value) - {"seeds", "base"})
        if unknown:
            raise ValueError(f"unknown key 'quick.{unknown[0]}': a quick version changes seeds and base")
        return value

    @model_validator(mode="after")
    def _published_rows_are_run(self) -> Table:
        unknown = sorted(set(self.published) - set(self.runs))
        if unknown:
            raise ValueError(f"published figures of {unknown[0]!r}, which is not among the runs {', '.join(self.runs)}")
        return self


def tables() -> dict[str, str]:
    """Names of all tables, each with its title."""
    return {file.stem: load_table(file.stem).title for file in sorted(_folder().glob("*.yaml"))}


def _quickly(table: Table) -> dict[str, Any]:
    base = table.quick.get("base", {})
    rows = {label: merged(run, {key: base[key] for key in base if key in run}) for label, run in table.runs.items()}
    return {"base": merged(table.base, base), "runs": rows, "seeds": table.quick.get("seeds", 1)}


def load_table(name: str, *, quick: bool = False, seeds: int | None = None, rows: Sequence[str] | None = None) -> Table:
    """A table by name.

    Args:
        name: One of ``tables()``.
        quick: With its changes for a quick run.
        seeds: How many seeds, if not the table's own number.
        rows: Labels of the rows to run; all if None. They are compared with the first one where the table's own choice
            is not among them.

    Raises:
        ValueError: There is no such table or row (the known ones are listed), or its file is not a table.
    """
    known = {file.stem: file for file in _folder().glob("*.yaml")}
    file = known.get(name)
    if file is None:
        raise ValueError(f"unknown table {name!r}{closest(name, known)}: choose one of {', '.join(tables())}")
    values = read_yaml(file)
    try:
        table = Table(**values)
        values |= _quickly(table) if quick else {}
        for row in rows or ():
            if row not in table.runs:
                raise ValueError(f"unknown row {row!r}{closest(row, table.runs)}: choose one of {_listed(table.runs)}")
        if rows:
            asked = {label: run for label, run in values["runs"].items() if label in rows}
            published = {label: figures for label, figures in values["published"].items() if label in rows}
            against = table.against if table.against in rows else next(iter(asked))
            values |= {"runs": asked, "published": published, "against": against}
            if not any(table.specs()[label].reads_rwalk for label in asked):  # the others' settings
                values["base"] = {key: value for key, value in values.get("base", {}).items() if key != "rwalk"}
        chosen = Table(**values | ({} if seeds is None else {"seeds": seeds}))
        chosen.specs()
    except ValidationError as error:
        raise ValueError(f"table {name}: {explain(error, Table)}") from None
    except ValueError as error:
        raise ValueError(f"table {name}: {error}") from None
    return chosen


def report(
    name: str, table: Table, rows: Sequence[Row], *, quick: bool, wall_seconds: float, reused: int = 0
) -> dict[str, Any]:
    """What is stored of a reproduction: figures, specs, and how far they are from the published ones.

    Args:
        name: The table's name.
        table: The table.
        rows: What became of its runs.
        quick: Whether this was the quick version.
        wall_seconds: How long it took from the first run to the last.
        reused: How many runs were found finished, and took no time.
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
        "reused": reused,
        "rows": [row.to_dict() | {"published": _beside(table.published.get(row.label, {}), row)} for row in rows],
    }


def command_of(name: str, labels: Sequence[str], seeds: Sequence[int], *, quick: bool) -> list[str]:
    """The command that runs these rows with these seeds; rows and seeds are named where they are not the table's own.

    Args:
        name: The table's name; of one that is not known here, rows are not named.
        labels: Of the rows.
        seeds: Seeds; a command has those from 0 to the last of them.
        quick: Whether it is the quick version.

    Example:
        >>> " ".join(command_of("eccv2018-mnist-multihead", ["EWC++", "RWalk"], [0, 1], quick=True))
        'rwalk reproduce eccv2018-mnist-multihead --quick --row EWC++ --row RWalk --seeds 2'
    """
    try:
        table = load_table(name, quick=quick)
    except ValueError:
        table = None
    some = table is not None and set(labels) != set(table.runs)
    rows = [word for label in labels if some for word in ("--row", label)]
    others = bool(seeds) and (table is None or set(seeds) != set(table.seeds))
    count = ["--seeds", str(max(seeds) + 1)] if others else []
    return ["rwalk", "reproduce", name, *(["--quick"] if quick else []), *rows, *count]


def _listed(labels: Iterable[str]) -> str:
    return ", ".join(repr(label) for label in labels)


def _beside(published: Mapping[str, Figure], row: Row) -> dict[str, Any]:
    beside = {}
    for metric, figure in published.items():
        value, deviation = figure if isinstance(figure, tuple) else (figure, None)
        ours = row.spread(metric)
        difference = None if ours is None else ours[0] - value
        beside[metric] = {"value": value, "deviation": deviation, "difference": difference}
    return beside


def _folder() -> Path:
    return Path(str(files("rwalk.experiments") / "tables"))
