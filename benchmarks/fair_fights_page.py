"""The page of ``benchmarks.fair_fights``: a table for each problem, average ranks, and fronts over the strengths."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.strengths import BEYOND

__all__ = ["UNTUNED", "draw", "page"]

UNTUNED, AVERAGED = ", untuned", ", at the average"  # how labels end


def draw(stored: dict[str, Any], path: Path) -> None:
    """Each method's front over λ: what is forgotten against what is not learned; labels in a column, by height."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    problems = stored["problems"]
    columns = min(2, len(problems))
    rows = -(-len(problems) // columns)
    figure = Figure(figsize=(7.0 * columns, 5.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes in panels[len(problems) :]:
        axes.set_axis_off()
    for axes, (name, problem) in zip(panels, problems.items(), strict=False):
        ends = []
        plain = dict.fromkeys(label.removesuffix(AVERAGED) for label in problem["tried"])
        colors = {label: f"C{index}" for index, label in enumerate(plain)}
        for label, every in problem["tried"].items():
            color, line = colors[label.removesuffix(AVERAGED)], "o--" if label.endswith(AVERAGED) else "o-"
            points = [point for point in every if point["average_accuracy"] is not None]  # the others diverged
            if points:
                x = [point["forgetting"] for point in points]
                y = [1.0 - point["learning_accuracy"] for point in points]
                axes.plot(x, y, line, color=color, markersize=3, linewidth=1)
                ends.append((y[-1], x[-1], label, color))
        for place, (y_end, x_end, label, color) in enumerate(sorted(ends)):
            axes.annotate(
                label, (x_end, y_end), xytext=(1.03, (place + 0.5) / len(ends)), textcoords="axes fraction",
                fontsize=8, color=color, va="center", arrowprops={"arrowstyle": "-", "color": color, "lw": 0.4},
            )  # fmt: skip
        axes.set(title=name, xlabel="forgetting", ylabel="error on each task when it was just learned", yscale="log")
        axes.tick_params(which="both", labelsize=8)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.title.set_fontsize(9)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "rwalk", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def page(stored: dict[str, Any], problems: Iterable[str]) -> str:
    """The page in Markdown.

    Args:
        stored: What was found.
        problems: Names of all problems, those not yet run too.
    """
    torch_version = stored["versions"]["torch"]
    lines = [
        "# Fair fights",
        "",
        f"Written by `make fair-fights` ({stored['date']}, torch {torch_version}). Each method's strength is chosen "
        "among three values a factor of ten apart, on a tenth of the training data that is held out; where the best is "
        f"at the end of those tried, the next is tried too, up to {BEYOND} times. What was chosen then learns other "
        "streams (other permutations, orders, weights) and is judged on test data. Learning rate, "
        "epochs and network (MLP 256-256, on CIFAR-100 four convolutions in bfloat16) are the same for all. "
        "Avalanche's RWalk is the paper's with other windows; CapyMOA's has half the strength and a Fisher that begins "
        "anew with each task: neither has a row of its own. “At the average”: each task ends at the average of its "
        "weights, the model too (`average_weights: true`). “Untuned” is `RWalkConfig.laplace()` with its own λ on "
        "every problem. A: average accuracy in %, F: forgetting, mean ± standard deviation; the last column is the "
        "difference in A to tuned laplace, seed by seed, with its 95 % interval. A method of which a stream diverged "
        "stands and ranks below those of which none did.",
        "",
    ]
    ranks: dict[str, list[int]] = {}
    for name, problem in stored["problems"].items():
        streams = max(len(row["seeds"]) for row in problem["rows"])
        rows = sorted(problem["rows"], key=lambda row: (len(row["seeds"]) < streams, -row["mean"]["average_accuracy"]))
        lines += [
            f"## {name[0].upper()}{name[1:]}",
            "",
            f"Chosen on {len(problem['development'])}, judged on {streams} streams.",
            "",
            "| | λ | A % | F | against laplace |",
            "|---|---:|---:|---:|---:|",
        ]
        for rank, row in enumerate((row for row in rows if not row["label"].endswith(UNTUNED)), start=1):
            ranks.setdefault(row["label"], []).append(rank)
        for row in rows:
            lines.append(_row(row, problem["chosen"][row["label"]], streams))
        lines.append("")
    missing = [name for name in problems if name not in stored["problems"]]
    if missing:
        lines += [f"Not run to the end yet: {'; '.join(missing)}.", ""]
    lines += ["## Average rank", "", "| | " + " | ".join(stored["problems"]) + " | mean |"]
    lines.append("|---|" + "---:|" * (len(stored["problems"]) + 1))
    for label, own in sorted(ranks.items(), key=lambda item: mean(item[1])):
        lines.append(f"| {label} | " + " | ".join(map(str, own)) + f" | {mean(own):.1f} |")
    lines += [
        "",
        "## Fronts over λ",
        "",
        "On the development streams: each line is a method (dashed: at the average), each point the mean at one of its "
        "strengths (those that "
        "diverged are left out); a label leads to the largest. Lower left is better.",
        "",
        "![fronts](../reproductions/fair-fights.svg)",
    ]
    return "\n".join(lines) + "\n"


def _row(row: dict[str, Any], chosen: dict[str, Any], streams: int) -> str:
    strength = chosen.get("rwalk", {}).get("ewc_lambda", chosen.get("options", {}).get("strength"))
    told = "default" if row["label"].endswith(UNTUNED) else "" if strength is None else f"{strength:g}"
    accuracy = f"{100 * row['mean']['average_accuracy']:.1f} ± {100 * row['deviation']['average_accuracy']:.1f}"
    forgetting = f"{row['mean']['forgetting']:.3f} ± {row['deviation']['forgetting']:.3f}"
    against = row["differences"].get("average_accuracy")
    difference = "" if against is None else f"{100 * against['mean']:+.1f}"
    if against is not None and against["low"] is not None:
        difference += f" [{100 * against['low']:.1f}, {100 * against['high']:.1f}]"
    done = len(row["seeds"])
    label = row["label"] if done == streams else f"{row['label']} ({done} of {streams}: the others diverged)"
    return f"| {label} | {told} | {accuracy} | {forgetting} | {difference} |"
