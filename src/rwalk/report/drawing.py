"""Figures as pictures for papers, by matplotlib: names beside what they name, nothing over anything else."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any, cast

from rwalk.errors import MissingExtraError
from rwalk.experiments.writing import writing_whole
from rwalk.report.charts import Chart, Series
from rwalk.report.placing import Spot, place

__all__ = ["DARK", "LIGHT", "draw"]

#: The first six are told apart by the colour-blind, all are read as text; a page has the others on dark ground.
LIGHT = ("#0072b2", "#c04e00", "#59432d", "#bf0080", "#541773", "#7900f2", "#00805f", "#5f6670")
DARK = ("#56b4e9", "#f0863a", "#f2f230", "#f200a2", "#a455f2", "#55f2d8", "#8fd14f", "#b4bcc6")
SIGNS = "osD^*XhvP<>d"
SOFT = "#5b6470"


def draw(chart: Chart, target: Path) -> Path:
    """Draw a figure; the target's suffix chooses the format (``.svg``, ``.png``, ``.pdf``).

    Raises:
        MissingExtraError: matplotlib is not installed.
        OSError: It cannot be written; what was there before is as it was.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a picture", "cli", error) from error
    with rc_context({"svg.hashsalt": "rwalk", "svg.fonttype": "none", "font.size": 10}):
        rows = len(chart.heat.rows) if chart.heat else 0
        bars = len(chart.series[0].x) if chart.series and chart.series[0].kind == "bar" else 0
        figure = Figure(figsize=(7.2, 1.5 + 0.32 * rows if rows else 1.7 + 0.36 * bars if bars else 4.4))
        axes = figure.add_subplot()
        if chart.heat:
            _heat(chart, axes)
        elif bars:
            _bars(chart, axes)
        else:
            _points(chart, axes)
        axes.set_title("\n".join(textwrap.wrap(_drawn(chart.title), 78)), loc="left", fontsize=11, pad=12)
        figure.set_layout_engine("constrained")
        if not (chart.heat or bars):
            _names(chart, figure, axes)
        kind, metadata = target.suffix.lower().lstrip("."), {"Date": None} if target.suffix == ".svg" else None
        with writing_whole(target) as file:
            figure.savefig(file, format=kind, dpi=200, metadata=metadata)
    return target


def _points(chart: Chart, axes: Any) -> None:
    for series in chart.series:
        own, x = _colour(series, chart), [float("nan") if v is None else v for v in series.x]
        y = [float("nan") if v is None else v for v in series.y]
        sign = "o" if chart.ordered else SIGNS[int(series.colour or 0) % len(SIGNS)]
        if series.kind == "points":
            axes.plot(x, y, sign, color=own, alpha=0.35, markersize=4, linewidth=0)
        elif series.kind == "published":
            axes.plot(x, y, sign, color=own, markersize=8, markerfacecolor="none", markeredgewidth=1.6)
        elif series.kind == "mean":
            halves = [None if half is None or half[0] is None else half for half in (series.x_half, series.y_half)]
            axes.errorbar(x, y, halves[1], halves[0], fmt=sign, color=own, markersize=8, capsize=3, elinewidth=1.2)
        else:
            if series.low is not None and series.high is not None:
                axes.fill_between(x, series.low, series.high, color=own, alpha=0.15, linewidth=0)
            few = sum(v is not None for v in series.x) <= 25
            axes.plot(
                x,
                y,
                "--" if series.dashed else "-",
                color=own,
                marker=sign if few else None,
                markersize=4.5,
                linewidth=1.8,
            )
    for where in chart.marks:
        axes.axvline(where, color="0.85", linewidth=0.8, zorder=0)
    if chart.zero:
        axes.axhline(0.0, color="0.7", linewidth=0.8, zorder=0)
        axes.axvline(0.0, color="0.7", linewidth=0.8, zorder=0)
    axes.set(xlabel=_drawn(chart.x), ylabel=_drawn(chart.y))
    if chart.log_x:
        axes.set_xscale("log")
    if chart.y_range is not None:
        axes.set_ylim(*chart.y_range)
    axes.grid(color="0.93", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    whole = cast("set[int]", {v for series in chart.series for v in series.x if isinstance(v, int)})
    if whole and all(v in whole for series in chart.series for v in series.x) and max(whole) - min(whole) < 20:
        axes.set_xticks(range(min(whole), max(whole) + 1))


def _names(chart: Chart, figure: Any, axes: Any) -> None:
    """Write names where there is room, which is known once the figure is laid out; those at lines' ends get some."""
    named = [series for series in chart.series if series.direct]
    lines = any(series.kind == "line" for series in named)
    if not named:
        return
    longest = max(len(series.direct or "") for series in named)
    if lines:
        figure.get_layout_engine().set(rect=(0, 0, 1 - min(0.3, 0.012 * min(longest, 26) + 0.02), 1))
    figure.draw_without_rendering()
    box = axes.get_window_extent()
    scale = figure.dpi / 72
    spots, known = [], []
    for series in named:
        ends = [(x, y) for x, y in zip(series.x, series.y, strict=True) if y is not None]
        if ends:
            x, y = axes.transData.transform(ends[-1])
            spots.append(Spot((x - box.x0) / scale, (y - box.y0) / scale, _drawn(series.direct or "", 26)))
            known.append((series, ends[-1]))
    placed = place(spots, (box.width / scale, box.height / scale), beside=lines)
    for (series, end), spot, shift in zip(known, spots, placed, strict=True):
        if shift is not None:
            axes.annotate(
                spot.text, end, xytext=shift, textcoords="offset points", va="center", fontsize=9,
                color=_colour(series, chart), annotation_clip=False,
                bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
            )  # fmt: skip


def _heat(chart: Chart, axes: Any) -> None:
    heat = chart.heat
    if heat is None:
        return
    values = [[float("nan") if v is None else v for v in row] for row in heat.values]
    most = heat.most or max((v for row in heat.values for v in row if v is not None), default=1.0) or 1.0
    axes.imshow(values, cmap="Blues", vmin=0.0, vmax=most, aspect="auto")
    for i, row in enumerate(heat.values if len(heat.columns) <= 20 else []):
        for k, value in enumerate(row):
            if value is not None:
                text, ink = f"{value:.{0 if value >= 10 else 1}f}", "white" if value > 0.6 * most else "#1b1f24"
                axes.text(k, i, text, ha="center", va="center", fontsize=8, color=ink)
    axes.set_xticks(range(len(heat.columns)), [_drawn(name, 20) for name in heat.columns])
    axes.set_yticks(range(len(heat.rows)), [_drawn(name, 34) for name in heat.rows])
    axes.set(xlabel=heat.column, ylabel=heat.row)


def _bars(chart: Chart, axes: Any) -> None:
    count = 1 if chart.stacked else len(chart.series)
    rows = len(chart.series[0].x)
    left = [0.0] * rows
    for index, series in enumerate(chart.series):
        places = [row + (index - (count - 1) / 2) * 0.8 / count if count > 1 else row for row in range(rows)]
        values = [v if isinstance(v, int | float) else 0.0 for v in series.y]
        axes.barh(
            places,
            values,
            0.8 / count,
            left=left if chart.stacked else 0.0,
            color=_colour(series, chart),
            label=_drawn(series.name),
        )
        left = [a + b for a, b in zip(left, values, strict=True)] if chart.stacked else left
    axes.set_yticks(range(rows), [_drawn(str(name), 34) for name in chart.series[0].x])
    axes.invert_yaxis()
    axes.set_xlabel(chart.y)
    axes.spines[["top", "right"]].set_visible(False)
    if len(chart.series) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(chart.series), frameon=False, fontsize=8)
        axes.set_title(axes.get_title(loc="left"), loc="left", pad=26)


def _colour(series: Series, chart: Chart) -> Any:
    if series.colour is None:
        return SOFT
    if chart.ordered:
        from matplotlib import colormaps

        return colormaps["viridis"](0.8 * series.colour)
    return LIGHT[int(series.colour) % len(LIGHT)]


def _drawn(text: str, most: int = 200) -> str:
    """Text in a picture: one line, no mathematics; a label that begins with _ would be left out."""
    line = "".join(sign if sign.isprintable() else "?" for sign in text)
    line = (line if len(line) <= most else line[: most - 1] + "…").replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line
