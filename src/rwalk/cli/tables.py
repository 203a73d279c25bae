"""Comparisons and reproductions as tables on a terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from rwalk.cli.display import plain, remark, show, spread
from rwalk.experiments.page import how_many_seeds
from rwalk.experiments.summary import METRICS, Difference, Row, spread_text

__all__ = ["comparison", "reproduction"]

TITLES = {
    "average_accuracy": "accuracy",
    "forgetting": "forgetting",
    "intransigence": "intransigence",
    "learning_accuracy": "learning acc.",
    "backward_transfer": "bwd. transfer",
}


def comparison(
    console: Console,
    rows: Sequence[Row],
    base: str | None,
    untuned: Collection[str] = (),
    title: str | None = None,
) -> None:
    """Mean ± standard deviation of each metric, and the difference from ``base`` seed by seed, in per cent.

    Args:
        console: Where to.
        rows: The runs.
        base: The label that others are compared with; None compares with none.
        untuned: Labels whose method's strength was not chosen for this benchmark.
        title: What the table shows, if not that.
    """
    seeds = max(len(row.results) for row in rows)
    table = Table(title=plain(title or _title(seeds)), title_justify="left")
    table.add_column("", overflow="fold", min_width=12)
    metrics = [metric for metric in rows[0].metrics if any(row.spread(metric) is not None for row in rows)]
    for metric in metrics:
        table.add_column(TITLES[metric], justify="right", no_wrap=True)
    table.add_column("s", justify="right", no_wrap=True)
    for row in rows:
        seconds = f"{row.seconds / len(row.results):.0f}" if row.results else "–"
        label = f"{row.label} *" if row.label in untuned else row.label
        table.add_row(plain(label), *(spread(list(row.values(metric).values())) for metric in metrics), seconds)
    show(console, table)
    if untuned:
        remark(
            console,
            "* at its preset's strength, which was not chosen for this benchmark: `rwalk tune` chooses, "
            "--set or --spec gives it",
        )
    if len(rows) > 1 and base is not None:
        _differences(console, rows, base, [metric for metric in metrics if metric != "learning_accuracy"])


def _title(seeds: int) -> str:
    return "In %, 1 seed" if seeds == 1 else f"Mean ± standard deviation in %, {seeds} seeds"


def _differences(console: Console, rows: Sequence[Row], base: str, metrics: Sequence[str]) -> None:
    pairs = max((found.pairs for row in rows for found in row.differences.values()), default=0)
    how = "points" if pairs <= 1 else "seed by seed: mean [95 % confidence interval], points"
    table = Table(title=plain(f"Less {base}, {how}"), title_justify="left")
    table.add_column("", overflow="fold", min_width=12)
    for metric in metrics:
        table.add_column(TITLES[metric], justify="right", no_wrap=True)
    for row in rows:
        if row.label != base:
            table.add_row(plain(row.label), *(_difference(row.differences.get(metric)) for metric in metrics))
    show(console, table)


def reproduction(console: Console, found: Mapping[str, Any]) -> None:
    """Published figure, ours, and the difference in points; a line for each metric of each label, all in per cent."""
    kind = " (quick version)" if found["quick"] else ""
    title = f"{found['title']}{kind}; {how_many_seeds(found)}, {found['wall_seconds'] / 60:.1f} min"
    table = Table(title=plain(title), title_justify="left")
    table.add_column("", min_width=12)
    table.add_column("%")
    for name in ("published", "here", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    metrics = [metric for metric in METRICS[:3] if any(row["mean"][metric] is not None for row in found["rows"])]
    for row in found["rows"]:
        for metric in metrics:
            label, last = (row["label"] if metric is metrics[0] else ""), metric is metrics[-1]
            table.add_row(plain(label), TITLES[metric], *_beside(row, metric), end_section=last)
        if not metrics:
            table.add_row(plain(row["label"]), "", "–", "–", "–", end_section=True)
    show(console, table)
    for note in found["protocol"]:
        remark(console, f"- {note}")


def _beside(row: Mapping[str, Any], metric: str) -> list[str]:
    published = row["published"].get(metric)
    deviation = row["deviation"][metric] if len(row["seeds"]) > 1 else None
    ours = None if row["mean"][metric] is None else (row["mean"][metric], deviation)
    if published is None:
        return ["–", spread_text(ours), "–"]
    known = (published["value"], published["deviation"])
    difference = published["difference"]
    return [spread_text(known), spread_text(ours), "–" if difference is None else f"{100 * difference:+.1f}"]


def _difference(found: Difference | None) -> str:
    if found is None:
        return "–"
    interval = "" if found.low is None or found.high is None else f" [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{100 * found.mean:+.1f}{interval}"
