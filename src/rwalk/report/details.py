"""Figures of one label: its accuracy matrix, each task over time, its layers, its loss and penalty."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from statistics import mean

from rwalk.experiments.recording import LayerRecord, Record
from rwalk.report.charts import Chart, Heat, Series
from rwalk.report.study import Group

__all__ = ["detail_charts"]

LAYERS = 15  # in a figure
PARTS = {
    "fisher": ("Fisher part", "how sensitive the outputs are to each layer (running Fisher)"),
    "score": ("Path part", "how much each layer's movement has lowered the loss (path score)"),
    "importance": ("Both together, as the penalty uses them", "what the penalty holds"),
}


def detail_charts(group: Group) -> list[Chart]:
    """All figures that its stored runs allow, means over seeds."""
    found = [*_of_matrix(group)]
    records = [run.record for run in group.runs if run.record is not None]
    if records:
        found += [chart for chart in (_loss_chart(records), _penalty_chart(records), *_layer_charts(records)) if chart]
    return found


def _of_matrix(group: Group) -> Iterable[Chart]:
    matrices = [run.matrix for run in group.runs if run.matrix is not None]
    size = len(matrices[0]) if matrices else 0
    matrices = [matrix for matrix in matrices if len(matrix) == size]
    if not matrices:
        return
    together = [[_mean(matrix[i][k] for matrix in matrices) for k in range(size)] for i in range(size)]
    names = [str(place + 1) for place in range(size)]
    over = f"mean of {len(matrices)} seeds" if len(matrices) > 1 else "one seed"
    heat = Heat(names, names, together, "after task", "tested on task", 100.0)
    note = (
        f"Accuracy in %, {over}. A row is a moment, a column a task: read down a column to see a task fade. Above the "
        "diagonal are tasks not learned yet."
    )
    yield Chart("matrix", _matrix_says(together), note, heat=heat)
    if size > 1:
        series = [
            Series(
                f"task {k + 1}",
                list(range(k + 1, size + 1)),
                [together[i][k] for i in range(k, size)],
                k / max(1, size - 1),
                direct=f"task {k + 1}",
            )
            for k in range(size)
        ]
        note = f"Each line is a task, from the moment it was learned; {over}."
        yield Chart(
            "tasks",
            _tasks_say(together),
            note,
            "after task",
            "accuracy in %",
            series,
            ordered=True,
            y_range=(0.0, 102.0),
        )


def _matrix_says(matrix: Sequence[Sequence[float | None]]) -> str:
    size = len(matrix)
    last = [value for value in matrix[-1] if value is not None]
    if size == 1 or not last:
        return f"The task ends at {last[0]:.0f} %" if last else "Nothing was tested at the end"
    first, now = matrix[0][0], matrix[-1][0]
    if first is None or now is None:
        return f"After the last task the tasks are at {min(last):.0f} to {max(last):.0f} %"
    kept = "still at" if first - now < 5 else "down to"
    return f"Task 1 was learned to {first:.0f} % and is {kept} {now:.0f} % at the end"


def _tasks_say(matrix: Sequence[Sequence[float | None]]) -> str:
    last = [(value, k + 1) for k, value in enumerate(matrix[-1]) if value is not None]
    if not last:
        return "Accuracy of each task over time"
    low, high = min(last), max(last)
    return f"At the end task {high[1]} is kept best ({high[0]:.0f} %), task {low[1]} worst ({low[0]:.0f} %)"


def _courses(records: Sequence[Record], what: str) -> tuple[list[float], list[float | None], list[float]]:
    """Experiences one after the other: place along x (1.5 is the middle of the second), mean over seeds, borders."""
    x: list[float] = []
    y: list[float | None] = []
    marks = []
    for place, course in enumerate(records[0].course):
        last = max(course.step, default=1)
        marks.append(float(course.experience))
        for point, step in enumerate(course.step):
            x.append(course.experience + step / last)
            parts = [getattr(r.course[place], what) for r in records if place < len(r.course)]
            y.append(_mean((part[point] if point < len(part) else None for part in parts), 1.0))
        x.append(course.experience + 1.0)
        y.append(None)
    return x, y, marks


def _loss_chart(records: Sequence[Record]) -> Chart | None:
    x, y, marks = _courses(records, "loss")
    known = [value for value in y if value is not None]
    if len(known) < 2:
        return None
    ends = [value for value, after in itertools.pairwise(y) if value is not None and after is None]
    title = f"The loss comes down to {ends[0]:.2g} in the first task, {ends[-1]:.2g} in the last"
    title = f"The loss goes from {known[0]:.2g} to {known[-1]:.2g}" if len(ends) < 2 else title
    note = "The training loss without the penalty, mean over seeds. Vertical lines are where a task begins."
    return Chart("loss", title, note, "tasks learned", "loss", [Series("loss", x, y, 0)], marks=marks)


def _penalty_chart(records: Sequence[Record]) -> Chart | None:
    x, y, marks = _courses(records, "penalty")
    known = [value for value in y if value is not None]
    if not known or not max(known):
        return None
    at = y.index(max(known))
    title = f"The penalty is largest, {max(known):.2g}, while task {int(x[at] - 1e-9) + 1} is learned"
    note = (
        "What the weights pay for leaving their anchors, on the same scale as the loss: 0 where a task begins, more as "
        "they move away, less as they come back. The first task has none."
    )
    return Chart("penalty", title, note, "tasks learned", "penalty", [Series("penalty", x, y, 1)], marks=marks)


def _layer_charts(records: Sequence[Record]) -> Iterable[Chart]:
    """Shares of each layer after each task: both parts, and together."""
    first = records[0]
    if not first.layers or not first.looks:
        return
    by_name = [{layer.name: layer for layer in record.layers} for record in records]
    ranked = sorted(first.layers, key=lambda layer: -(layer.importance[-1] or 0.0))[:LAYERS]
    names = [layer.name for layer in first.layers if layer in ranked]
    columns = [str(look + 1) for look in first.looks]
    left = len(first.layers) - len(names)
    more = f" The {left} lightest layers are left out." if left > 0 else ""
    for what, (title, meaning) in PARTS.items():
        values = [[_at(by_name, name, what, place) for place in range(len(columns))] for name in names]
        if any(value for row in values for value in row):
            note = f"Share of each layer in %: {meaning}.{more}"
            says = f"{title}: {_moved(names, values)}"
            yield Chart(f"layers-{what}", says, note, heat=Heat(names, columns, values, "layer", "after task"))


def _moved(names: Sequence[str], values: Sequence[Sequence[float | None]]) -> str:
    now = [(row[-1] or 0.0, name, row[0]) for name, row in zip(names, values, strict=True)]
    share, name, before = max(now)
    if before is None or len(values[0]) == 1:
        return f"layer {name} carries {share:.0f} %"
    if abs(share - before) < 3:
        return f"layer {name} carries {share:.0f} %, as after the first task"
    return f"layer {name} carries {share:.0f} %, after the first task {before:.0f} %"


def _at(records: Sequence[dict[str, LayerRecord]], name: str, what: str, place: int) -> float | None:
    found = [getattr(layers[name], what) for layers in records if name in layers]
    return _mean(column[place] if place < len(column) else None for column in found)


def _mean(values: Iterable[float | None], scale: float = 100.0) -> float | None:
    known = [scale * value for value in values if value is not None]
    return mean(known) if known else None
