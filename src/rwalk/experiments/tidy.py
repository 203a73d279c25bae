"""Runs as a tidy table: a row a run, a column for each setting that differs and for each metric; CSV and parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from rwalk.experiments.loading import differing, flat
from rwalk.experiments.methods import METHODS
from rwalk.experiments.pool import Outcome
from rwalk.experiments.spec import RunSpec
from rwalk.experiments.writing import writing_whole

__all__ = ["harmless", "tidy", "write_tables"]

FIRST = ("benchmark", "method", "strength", "seed")


def tidy(outcomes: Sequence[Outcome], specs: Mapping[str, RunSpec]) -> list[dict[str, Any]]:
    """A row for each run, in the order of specs and seeds.

    Args:
        outcomes: In any order.
        specs: By label.

    Returns:
        Rows with the same keys: ``run`` (its folder's name), ``label``, ``benchmark``, ``method``, ``strength`` (λ, or
        what the method has in its place), ``seed``, every other setting in which runs differ, the metrics as fractions,
        ``seconds``, ``status`` and ``error``.
    """
    place = {label: index for index, label in enumerate(specs)}
    found = sorted(outcomes, key=lambda outcome: (place[outcome.label], outcome.seed))
    settings_of = {label: flat(spec.canonical()) for label, spec in specs.items()}
    own = {METHODS[spec.method].strength for spec in specs.values()}
    others = [key for key in differing(settings_of.values()) if key not in (*FIRST, *own)]
    metrics = list(dict.fromkeys(name for outcome in found if outcome.result for name in outcome.result.metrics))
    rows = []
    for outcome in found:
        spec, result, settings = specs[outcome.label], outcome.result, settings_of[outcome.label]
        strength = METHODS[spec.method].strength
        rows.append(
            {
                "run": outcome.folder.name if outcome.folder else None,
                "label": outcome.label,
                "benchmark": spec.benchmark,
                "method": spec.method,
                "strength": settings.get(strength) if strength else None,
                "seed": outcome.seed,
                **{key: _scalar(settings.get(key)) for key in others},
                **{name: None if result is None else result.metrics.get(name) for name in metrics},
                "seconds": None if result is None else round(result.seconds, 3),
                "status": "failed" if result is None else "finished",
                "error": outcome.error,
            }
        )
    return rows


def write_tables(rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """``results.csv``, and ``results.parquet`` where pyarrow is installed; each there whole or not at all.

    Returns:
        What was written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: harmless(value) for key, value in row.items()} for row in rows)
    with writing_whole(folder / "results.csv") as file:
        file.write(text.getvalue().encode())
    try:
        pyarrow: Any = import_module("pyarrow")
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        return [folder / "results.csv"]
    columns = {key: _column([row[key] for row in rows]) for key in (rows[0] if rows else ())}
    with writing_whole(folder / "results.parquet") as file:
        parquet.write_table(pyarrow.table(columns), file)
    return [folder / "results.csv", folder / "results.parquet"]


def _scalar(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value)


def harmless(value: Any) -> Any:
    """A cell of CSV: text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _column(values: list[Any]) -> list[Any]:
    """Values of one kind: numbers, or text where they are mixed."""
    kinds = {type(value) for value in values if value is not None}
    return values if len(kinds) <= 1 or kinds == {int, float} else [None if v is None else str(v) for v in values]
