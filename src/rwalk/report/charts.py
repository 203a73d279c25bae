"""Figures as data: what is drawn, in words and numbers, whatever draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Chart", "Heat", "Series"]

Kind = Literal["line", "points", "mean", "published", "bar"]
Value = float | str | None


@dataclass(frozen=True)
class Series:
    """What belongs together in a figure.

    Attributes:
        name: What it is called.
        x: Places; names of categories for bars.
        y: Values there, None where there is none.
        colour: Number in the palette, a fraction if the chart is ordered, or None for what stands back.
        group: The label that it belongs to, for filters.
        kind: ``line``; ``points``, small ones; ``mean``, a large one with intervals; ``published``, a hollow one;
            ``bar``, a horizontal one.
        low: Lower end of a band around ``y``.
        high: Its upper end.
        x_half: Half an interval of each x.
        y_half: Half an interval of each y.
        dashed: Whether a line is.
        direct: Text at its last point.
        text: What is told of each point, instead of its numbers.
    """

    name: str
    x: Sequence[Value]
    y: Sequence[Value]
    colour: int | float | None = None
    group: str | None = None
    kind: Kind = "line"
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    x_half: Sequence[float | None] | None = None
    y_half: Sequence[float | None] | None = None
    dashed: bool = False
    direct: str | None = None
    text: Sequence[str] | None = None


@dataclass(frozen=True)
class Heat:
    """A table in colours.

    Attributes:
        rows: Names, from the top.
        columns: Names, from the left.
        values: In per cent, None where there is none.
        row: What a row is.
        column: What a column is.
        most: Value of the strongest colour; the largest one's if None.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    row: str
    column: str
    most: float | None = None


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        key: Its name in files and links.
        title: What it shows, as a sentence.
        note: How to read it.
        x: What lies along.
        y: What lies up.
        series: What is drawn, if it is no table.
        heat: The table, if it is one.
        log_x: Whether x is logarithmic.
        zero: Whether lines mark the zero of both axes.
        ordered: Whether colours are fractions of a scale, from first to last.
        stacked: Whether bars of a row follow each other.
        marks: Places along x that a line marks.
        y_range: Ends of y, where they are known.
    """

    key: str
    title: str
    note: str
    x: str = ""
    y: str = ""
    series: Sequence[Series] = ()
    heat: Heat | None = None
    log_x: bool = False
    zero: bool = False
    ordered: bool = False
    stacked: bool = False
    marks: Sequence[float] = ()
    y_range: tuple[float, float] | None = None

    def plain(self) -> dict[str, Any]:
        """As values for JSON, what is at its default left out and numbers to four digits."""
        found = {**_told(self), "series": [_told(series) for series in self.series]}
        return found | ({"heat": _told(self.heat)} if self.heat else {})


def _told(part: Any) -> dict[str, Any]:
    given = {name: value for name, value in vars(part).items() if not (value is None or value is False or value == ())}
    return {name: _short(value) for name, value in given.items()}


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return [_short(part) for part in value] if isinstance(value, list | tuple) else value
