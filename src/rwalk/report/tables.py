"""Tables of a study, as text in cells, whatever they become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rwalk.experiments.loading import flat
from rwalk.experiments.summary import spread_text
from rwalk.report.study import NAMES, Group, Study, shown

__all__ = ["Line", "Table", "difference_table", "settings_table", "summary_table"]

WIDEST = 12  # labels in a table of settings


@dataclass(frozen=True)
class Line:
    """A row.

    Attributes:
        cells: Text, the name first.
        group: Which label it belongs to, by number.
        best: Whether it stands out.
    """

    cells: Sequence[str]
    group: int | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table; ``words`` where cells are no numbers."""

    head: Sequence[str]
    rows: Sequence[Line]
    caption: str = ""
    words: bool = False


def summary_table(study: Study) -> Table:
    """Mean ± standard deviation of each metric in per cent, seconds, and published figures beside."""
    metrics = study.metrics
    published = [name for name in metrics if any(name in group.published for group in study.groups)]
    best = _best(study, metrics[0]) if metrics else set()
    head = ["", *(part for name in metrics for part in _heads(name, published)), "seeds", "seconds a run"]
    rows = []
    for index, group in enumerate(study.groups):
        label = f"{group.label} *" if group.tuned is False else group.label
        cells = [shown(label)]
        for name in metrics:
            cells.append(spread_text(group.spread(name)))
            if name in published:
                cells.append(spread_text(group.published.get(name)))
        seconds = [run.seconds for run in group.runs]
        failed = f" ({len(group.errors)} failed)" if group.errors else ""
        cells += [f"{len(group.runs)}{failed}", f"{sum(seconds) / len(seconds):.3g}" if seconds else "–"]
        rows.append(Line(cells, index, group.label in best and len(study.groups) > 1))
    several = any(len(group.runs) > 1 for group in study.groups)
    caption = "In per cent; forgetting and intransigence: lower is better."
    caption += " Mean ± standard deviation over seeds." if several else ""
    if any(group.tuned is False for group in study.groups):
        caption += " * at its preset's strength, which was not chosen for this benchmark."
    return Table(head, rows, caption)


def _best(study: Study, metric: str) -> set[str]:
    """The label that was chosen; else the best of each benchmark with several."""
    if any(group.label == study.best for group in study.groups):
        return {str(study.best)}
    ranked = study.ranked(metric)
    several = [groups for groups in study.benchmarks.values() if len(groups) > 1]
    return {label for groups in several for label in [g.label for g in ranked if g in groups][:1]}


def _heads(name: str, published: Sequence[str]) -> list[str]:
    return [NAMES[name][0], *(["published"] if name in published else [])]


def difference_table(study: Study) -> Table | None:
    """Each label less the one that all are compared with, seed by seed, in points."""
    against = study.against
    metrics = [name for name in study.metrics if any(name in group.differences for group in study.groups)]
    if against is None or not metrics:
        return None
    rows, intervals = [], False
    for index, group in enumerate(study.groups):
        if group.label != against and group.differences:
            cells = []
            for name in metrics:
                found = group.differences.get(name)
                if found is None:
                    cells.append("–")
                    continue
                known = found.low is not None and found.high is not None
                intervals = intervals or known
                ends = f" [{100 * (found.low or 0.0):+.1f}, {100 * (found.high or 0.0):+.1f}]" if known else ""
                cells.append(f"{100 * found.mean:+.1f}{ends}")
            rows.append(Line([shown(group.label), *cells], index))
    caption = f"Less {shown(against)}, in points; one seed, so the differences may be chance."
    if intervals:
        caption = (
            f"Less {shown(against)}, seed by seed: mean and 95 % confidence interval, in points. Where the interval "
            "includes 0, the two are not told apart."
        )
    return Table(["", *(NAMES[name][0] for name in metrics)], rows, caption) if rows else None


def settings_table(study: Study) -> Table | None:
    """Settings in which labels differ: a column for each label, or a row if they are many."""
    differing = study.differing()
    if not differing:
        return None
    labels = [shown(group.label, 60) for group in study.groups]
    if len(labels) <= WIDEST:
        rows = [Line([key, *map(value_text, values)]) for key, values in differing.items()]
        return Table(["setting", *labels], rows, words=True)
    rows = [
        Line([label, *(value_text(values[index]) for values in differing.values())], index)
        for index, label in enumerate(labels)
    ]
    return Table(["", *differing], rows, words=True)


def shared_settings(groups: Sequence[Group]) -> dict[str, Any]:
    """Settings that all labels have in common."""
    configs = [flat(group.config) for group in groups]
    first: Mapping[str, Any] = configs[0] if configs else {}
    return {
        key: value for key, value in first.items()
        if key != "seed" and all(key in config and config[key] == value for config in configs)
    }  # fmt: skip


def value_text(value: object) -> str:
    """A setting."""
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else shown(value)
