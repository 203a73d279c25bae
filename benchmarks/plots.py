"""Plots of the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["PLOTS", "plot_memory", "plot_overhead", "plot_scaling"]

Report = Mapping[str, Any]

COLOURS = {
    "eager": "#7fb3d5",
    "auto": "#1f618d",
    "Avalanche RWalk": "#c0392b",
    "CapyMOA RWalk": "#e59866",
}


def plot_overhead(report: Report, target: Path) -> None:
    """What each variant adds to a step, by case, with SGD."""
    rows = [row for row in report["rows"] if row["optimizer"] == "sgd" and "added_ms" in row]
    cases = list(dict.fromkeys(row["case"] for row in rows))
    figure, axes = _figure(9, 4)
    for place, (variant, colour) in enumerate(COLOURS.items()):
        added = {row["case"]: row["added_ms"] for row in rows if row["variant"] == variant and row["added_ms"] > 0}
        if not added:  # a peer that was not installed
            continue
        positions = [cases.index(case) + (place - 1.5) / 5 for case in added]
        axes.bar(positions, list(added.values()), width=1 / 5, color=colour, label=_label(variant))
    axes.set_xticks(range(len(cases)), cases, rotation=30, ha="right")
    axes.set_yscale("log")
    axes.set_ylabel("added to a step, ms")
    axes.legend()
    _save(figure, target)


def plot_scaling(report: Report, target: Path) -> None:
    """Time of the core's step against the number of parameters."""
    figure, axes = _figure(6, 4)
    for variant, colour in (("eager", COLOURS["eager"]), ("fused", COLOURS["auto"])):
        points = sorted((row["parameters"], row["step_ms"]) for row in report["rows"] if row["variant"] == variant)
        axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=_label(variant))
    size, time = points[-1]
    sizes = [point[0] for point in points]
    axes.plot(sizes, [time * other / size for other in sizes], "--", color="grey", label="proportional")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("parameters")
    axes.set_ylabel("step of the core alone, ms")
    axes.legend()
    _save(figure, target)


def plot_memory(report: Report, target: Path) -> None:
    """Copies of the network that each variant keeps, at rest and at the peak."""
    rows = report["rows"]
    names = [f"{row['variant']}, {row['experience']}" for row in rows]
    figure, axes = _figure(7, 4)
    axes.barh(names, [row["copies_at_peak"] for row in rows], color="#d5d8dc", label="at the peak of a step")
    axes.barh(names, [row["copies_at_rest"] for row in rows], color=COLOURS["auto"], label="between steps")
    axes.invert_yaxis()
    axes.set_xlabel("float32 copies of the network")
    axes.legend()
    _save(figure, target)


PLOTS: dict[str, Callable[[Report, Path], None]] = {
    "step_overhead": plot_overhead,
    "memory": plot_memory,
    "scaling": plot_scaling,
}


def _label(variant: str) -> str:
    return variant if " " in variant else f"rwalk, {variant}"


def _figure(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "rwalk"  # the same figures give the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, target: Path) -> None:
    figure.savefig(target, metadata={"Date": None})
