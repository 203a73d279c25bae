"""Figures that show all labels side by side."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from rwalk.experiments.summary import half_interval
from rwalk.report.charts import Chart, Series
from rwalk.report.study import Group, Study

__all__ = ["course_chart", "plane_chart"]

LOWER = "lower is better"
#: Where no label is ahead of another: they were asked different things.
OF_SEVERAL = ", on several benchmarks: compare within one"


def plane_chart(study: Study, *, alone: bool = False) -> Chart | None:
    """Each label at its forgetting and intransigence, in points; None if no label has both.

    Args:
        study: What to draw.
        alone: Draw a single point too, which a table tells as well.
    """
    series: list[Series] = []
    placed: list[tuple[float, float, str]] = []
    for index, group in enumerate(study.groups):
        pairs = [(run, f, i) for run in group.runs if (f := run.metrics.get("forgetting")) is not None
                 and (i := run.metrics.get("intransigence")) is not None]  # fmt: skip
        if not pairs:
            continue
        forgetting, intransigence = [100 * f for _, f, _ in pairs], [100 * i for _, _, i in pairs]
        if len(pairs) > 1:
            seeds = [f"{group.label}, seed {run.seed}" for run, _, _ in pairs]
            series.append(
                Series(f"{group.label}, seeds", forgetting, intransigence, index, group.label, "points", text=seeds)
            )
        here = mean(forgetting), mean(intransigence)
        placed.append((*here, group.label))
        series.append(
            Series(
                group.label,
                [here[0]],
                [here[1]],
                index,
                group.label,
                "mean",
                direct=group.label,
                x_half=[_interval(forgetting)],
                y_half=[_interval(intransigence)],
            )
        )
        known = [group.published.get(name) for name in ("forgetting", "intransigence")]
        if known[0] is not None and known[1] is not None:
            there = 100 * known[0][0], 100 * known[1][0]
            series.append(Series(f"{group.label}, published", [there[0]], [there[1]], index, group.label, "published"))
    if not series or (len(series) == 1 and not alone):
        return None
    has_published = any(one.kind == "published" for one in series)
    note = (
        "Forgetting: how far old tasks have fallen from their best. Intransigence: how far new tasks stay behind a "
        "model trained on everything at once. The lower left corner is where a method wants to be. Small points are "
        "seeds; the large one is their mean, with the 95 % confidence interval of the mean from three seeds on."
        + (" Hollow points are the published figures." if has_published else "")
    )
    hollow = "; hollow: as published" if has_published else ""
    axes = f"forgetting in points ({LOWER}{hollow})", f"intransigence in points ({LOWER})"
    says = _plane_says(placed) if len(study.benchmarks) < 2 else f"Forgetting and intransigence{OF_SEVERAL}"
    return Chart("plane", says, note, *axes, series, zero=True)


def _plane_says(placed: Sequence[tuple[float, float, str]]) -> str:
    if len(placed) == 1:
        f, i, label = placed[0]
        return f"{label} forgets {f:.1f} points and stays {i:.1f} behind joint training"
    least = min(placed)
    learns = min(placed, key=lambda place: place[1])
    if least is learns:
        return f"{least[2]} forgets least and learns best"
    return f"{least[2]} forgets least, {learns[2]} is least held back from learning"


def course_chart(study: Study) -> Chart | None:
    """Average accuracy over the tasks seen so far, after each task; None without matrices of several tasks."""
    series, ends, tasks = [], [], 0
    for index, group in enumerate(study.groups):
        curves = [curve for run in group.runs if (curve := averages(run.matrix)) is not None]
        if not curves:
            continue
        longest = max(map(len, curves))
        tasks = max(tasks, longest)
        columns = [[100 * curve[place] for curve in curves if place < len(curve)] for place in range(longest)]
        means = [mean(column) for column in columns]
        low, high = [min(column) for column in columns], [max(column) for column in columns]
        band = {"low": low, "high": high} if len(curves) > 1 and len(study.groups) <= 12 else {}
        ends.append((means[-1], means[0], group))
        series.append(
            Series(group.label, list(range(1, longest + 1)), means, index, group.label, direct=group.label, **band)  # type: ignore[arg-type]
        )
    if tasks < 2:
        return None
    spread = " Bands reach from the lowest seed to the highest." if any(one.low for one in series) else ""
    note = f"The mean over all tasks seen so far, after each task. A flat line keeps what it has learned.{spread}"
    says = _course_says(ends) if len(study.benchmarks) < 2 else f"Average accuracy after each task{OF_SEVERAL}"
    return Chart("course", says, note, "after task", "average accuracy in %", series)


def averages(matrix: Sequence[Sequence[float | None]] | None) -> list[float] | None:
    """Mean accuracy on tasks 0..i after each task i, as far as all of them were tested."""
    if matrix is None:
        return None
    found = []
    for place, row in enumerate(matrix):
        seen = [value for value in row[: place + 1] if value is not None]
        if len(seen) < place + 1:
            break
        found.append(mean(seen))
    return found or None


def _course_says(ends: Sequence[tuple[float, float, Group]]) -> str:
    best = max(ends, key=lambda end: end[0])
    worst = min(ends, key=lambda end: end[0])
    if len(ends) == 1:
        return f"{best[2].label} goes from {best[1]:.0f} % after the first task to {best[0]:.0f} % after the last"
    return f"After the last task {best[2].label} is at {best[0]:.0f} %, {worst[2].label} at {worst[0]:.0f} %"


def _interval(values: Sequence[float]) -> float | None:
    """Half an interval around a mean; None for fewer than three values."""
    return half_interval(values) if len(values) > 2 else None
