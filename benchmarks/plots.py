"""Plots of the results: titles say what was found, names stand beside what they name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["BLUE", "ORANGE", "PLOTS", "plot_memory", "plot_overhead", "plot_scaling"]

Report = Mapping[str, Any]

BLUE, ORANGE, SOFT = "#0072b2", "#c04e00", "#5f6670"  # told apart by the colour-blind
#: Variants in the order in which they are drawn: name, colour, sign.
VARIANTS = {
    "auto": ("rwalk", BLUE, "o"),
    "eager": ("rwalk, torch's operations", "#5aa9d6", "o"),
    "CapyMOA RWalk": ("CapyMOA's RWalk", "#59432d", "s"),
    "Avalanche RWalk": ("Avalanche's RWalk", ORANGE, "D"),
}
#: Where a value stands, from its sign.
BESIDE = {"auto": ((-8, 0), "right"), "Avalanche RWalk": ((8, 0), "left")}
KINDS = {"mlp": "MLP", "resnet": "ResNet", "transformer": "transformer", "wide": "wide MLP"}
KEPT = {
    "fused": "rwalk", "eager": "rwalk, torch's operations", "fused_delta_t_1": "rwalk, Δt 1",
    "fused_bfloat16": "rwalk, bfloat16", "eager_bfloat16": "rwalk, bfloat16, torch's operations",
    "avalanche": "Avalanche's RWalk", "capymoa": "CapyMOA's RWalk",
}  # fmt: skip


#: Per cent; what is added is told from nothing above it.
LEAST = 0.5


def plot_overhead(report: Report, target: Path) -> None:
    """What each variant adds to a step, in per cent of the bare one, by case, with SGD."""
    rows = [row for row in report["rows"] if row["optimizer"] == "sgd"]
    bare = {row["case"]: row for row in rows if row["variant"] == "bare"}
    peers = {row["case"] for row in rows if row["variant"] in ("Avalanche RWalk", "CapyMOA RWalk")}
    cases = [case for case in bare if case in peers] or list(bare)
    cases.sort(key=lambda case: bare[case]["parameters"])
    figure, axes = _figure(8, 1.5 + 0.42 * len(cases))
    ends: dict[str, tuple[float, float]] = {}
    for variant, (name, colour, sign) in VARIANTS.items():
        added = {
            row["case"]: max(LEAST, 100 * row["added_ms"] / bare[row["case"]]["step_ms"])
            for row in rows
            if row["variant"] == variant and row["case"] in cases and "added_ms" in row
        }
        if not added:  # a peer that was not installed
            continue
        ends[variant] = min(added.values()), max(added.values())
        places = [cases.index(case) for case in added]
        axes.plot(list(added.values()), places, sign, color=colour, markersize=8 if variant == "auto" else 6.5)
        top = min(added, key=cases.index)
        axes.annotate(
            name, (added[top], cases.index(top)), xytext=(0, 11 if variant != "eager" else 24), ha="center",
            textcoords="offset points", color=colour, fontsize=9, annotation_clip=False,
        )  # fmt: skip
        for case, value in added.items() if variant != "eager" else ():
            shift, side = BESIDE.get(variant, ((0, -12), "center"))
            axes.annotate(
                _per_cent(value), (value, cases.index(case)), xytext=shift,
                textcoords="offset points", va="center", ha=side, color=colour, fontsize=8,
            )  # fmt: skip
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low / 2, high * 1.6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.set_yticks(range(len(cases)), [_case(bare[case]) for case in cases])
    axes.set_ylim(len(cases) - 0.5, -1.3)
    axes.grid(axis="x", color="0.92", linewidth=0.6)
    axes.set_xlabel("added to a bare training step, logarithmic")
    ours, theirs = ends.get("auto"), ends.get("Avalanche RWalk")
    title = "What rwalk adds to a training step on the CPU"
    if ours and theirs:
        least = f"{ours[0]:.2g} to" if ours[0] > LEAST else "up to"
        title = f"On the CPU rwalk adds {least} {ours[1]:.0f} % to a step, "
        title += f"Avalanche's RWalk {theirs[0]:.0f} to {theirs[1]:.0f} %"
    _save(figure, title, target)


def _per_cent(value: float) -> str:
    if value <= LEAST:
        return f"≤ {LEAST:g} %"
    return f"{value:.2g} %" if value < 100 else f"{value:.0f} %"


def plot_scaling(report: Report, target: Path) -> None:
    """Time of the core's step against the number of parameters."""
    figure, axes = _figure(7.5, 4)
    found: list[float] = []
    for variant, key in (("eager", "eager"), ("fused", "auto")):
        name, colour, sign = VARIANTS[key]
        points = sorted((row["parameters"], row["step_ms"]) for row in report["rows"] if row["variant"] == variant)
        axes.plot(*zip(*points, strict=True), marker=sign, color=colour)
        axes.annotate(
            name, points[1], xytext=(-8, 6) if key == "eager" else (8, -6), textcoords="offset points", va="center",
            ha="right" if key == "eager" else "left", color=colour, fontsize=9,
        )  # fmt: skip
        found = [1e6 * time / size for size, time in points]
    size, time = points[-1]
    sizes = [point[0] for point in points]
    axes.plot(sizes, [time * other / size for other in sizes], ":", color=SOFT, linewidth=1)
    axes.annotate(
        "proportional", (sizes[-2], time * sizes[-2] / size), xytext=(-8, 4), textcoords="offset points", color=SOFT,
        fontsize=8, ha="right",
    )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="weights", ylabel="step of the core alone, ms")
    sizes_told = f"from {_count(sizes[0])} weights to {_count(size)}"
    title = f"A weight costs {min(found):.2g} to {max(found):.2g} ns a step, {sizes_told}"
    _save(figure, title, target)


def plot_memory(report: Report, target: Path) -> None:
    """Copies of the network that each variant keeps after the first task, at rest and at the peak."""
    later = {row["variant"]: row for row in report["rows"] if row["experience"] == "later"}
    first = {row["variant"]: row["copies_at_rest"] for row in report["rows"] if row["experience"] == "first"}
    names = sorted(later, key=lambda name: later[name]["copies_at_rest"])
    figure, axes = _figure(7.5, 1.4 + 0.4 * len(names))
    for place, name in enumerate(names):
        rest, peak = later[name]["copies_at_rest"], later[name]["copies_at_peak"]
        axes.barh(place, peak, height=0.6, color="#d5dae0")
        axes.barh(place, rest, height=0.6, color=BLUE if "rwalk" in KEPT.get(name, name) else ORANGE)
        told = f"{rest:.3g}" + (f", at the peak of a step {peak:.3g}" if peak - rest > 0.05 else "")
        told += f" (during the first task {first[name]:.3g})" if name in first else ""
        axes.annotate(told, (peak, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), [KEPT.get(name, name) for name in names])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.6 * max(row["copies_at_peak"] for row in later.values()))
    axes.set_xlabel("float32 copies of the network, kept from the second task on")
    title = f"rwalk keeps {later['fused']['copies_at_rest']:.0f} copies of the network"
    if "avalanche" in later:
        title += f", Avalanche's RWalk {later['avalanche']['copies_at_rest']:.0f}"
    _save(figure, title, target)


PLOTS: dict[str, Callable[[Report, Path], None]] = {
    "step_overhead": plot_overhead,
    "memory": plot_memory,
    "scaling": plot_scaling,
}


def _case(row: Mapping[str, Any]) -> str:
    kind = row["case"].split("_")[0]
    return f"{KINDS.get(kind, kind)}, {_count(row['parameters'])}, batch {row['batch']}"


def _count(number: float) -> str:
    return f"{number / 1e6:.3g} M" if number >= 1e6 else f"{number / 1e3:.0f} k"


def _figure(width: float, height: float) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "rwalk"  # the same figures give the same file
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, title: str, target: Path) -> None:
    from matplotlib import pyplot

    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5)
    figure.savefig(target, metadata={"Date": None})
    pyplot.close(figure)
