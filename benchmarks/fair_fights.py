"""Every method with λ tuned on held-out data over the same budget, then on streams that chose nothing: one page.

``make fair-fights``, or ``python -m benchmarks.fair_fights``: results go to ``reproductions/fair-fights/results.json``,
the page to ``docs/fair-fights.md``. Runs that are finished in ``--runs`` are not run again, so that it may be stopped
and started.
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path
from statistics import mean
from typing import Any

from rwalk.experiments import run_all, summarise
from rwalk.experiments.comparison import build_comparison
from rwalk.experiments.loading import merged, nested
from rwalk.experiments.results import versions, write_json
from rwalk.experiments.summary import Row
from rwalk.experiments.tune import best, candidates

__all__ = ["main"]

DEVELOPMENT, CONFIRMATION = (20,), (200, 201, 202, 203, 204)
PERMUTED = {"shuffle_classes": True, "batch_size": 10, "optimizer": "sgd", "lr": 0.1}
#: With ``seeds`` in place of CONFIRMATION where a run takes long.
PROBLEMS: dict[str, dict[str, Any]] = {
    "permuted digits, 5 tasks, no exemplars": {
        "benchmark": "permuted-digits", "n_experiences": 5, "epochs": 3, **PERMUTED,
    },
    "split digits, 5 × 2 classes, single head, 2 exemplars a class": {
        "benchmark": "split-digits", "shuffle_classes": True, "epochs": 8, "batch_size": 32, "replay_batch_size": 128,
        "heads": "masked", "exemplars": 2, "optimizer": "adam", "lr": 1e-3,
    },
    "split MNIST, 5 × 2 classes, single head, 10 exemplars a class": {
        "benchmark": "split-mnist", "shuffle_classes": True, "epochs": 1, "batch_size": 64,
        "replay_batch_size": "balanced", "heads": "masked", "exemplars": 10, "sampler": "mean-of-features",
        "optimizer": "adam", "lr": 2e-4,
    },
    "permuted MNIST, 6 tasks, no exemplars": {
        "benchmark": "permuted-mnist", "n_experiences": 6, "epochs": 1, **PERMUTED,
    },
    "CIFAR-100, 5 × 10 classes, a head a task, no exemplars": {
        "benchmark": "split-cifar100", "n_experiences": 10, "only_first": 5, "shuffle_classes": True, "epochs": 1,
        "batch_size": 32, "heads": "multi", "task_labels": True, "optimizer": "adam", "lr": 1e-3, "model": "paper-cnn",
        "model_options": {"channels": [16, 16, 32, 32], "dropout": 0.0}, "seeds": (200, 201, 202),
    },
}  # fmt: skip
#: By label: what the run is, the key of its strength, and the three values that are tried, a factor of ten apart.
METHODS: dict[str, tuple[dict[str, Any], str, tuple[float, ...]]] = {
    "fine-tuning": ({"method": "fine-tuning"}, "", ()),
    "RWalk, laplace": ({"method": "rwalk-laplace"}, "rwalk.ewc_lambda", (400.0, 4000.0, 40000.0)),
    "RWalk, paper": ({"method": "rwalk"}, "rwalk.ewc_lambda", (0.1, 1.0, 10.0)),
    "RWalk, agem": ({"method": "rwalk-agem"}, "rwalk.ewc_lambda", (0.1, 1.0, 10.0)),
    "RWalk, facil": ({"method": "rwalk-facil"}, "rwalk.ewc_lambda", (1.0, 10.0, 100.0)),
    "EWC++": ({"method": "ewc++"}, "rwalk.ewc_lambda", (1.0, 10.0, 100.0)),
    "online EWC, sums": (
        {
            "method": "rwalk-laplace",
            "rwalk": {"terms": "fisher", "scaling": "none", "combine": "sum", "anchor_at": "last"},
        },
        "rwalk.ewc_lambda",
        (1.0, 10.0, 100.0),
    ),
    "PI": ({"method": "pi"}, "rwalk.ewc_lambda", (0.001, 0.01, 0.1)),
    "MAS": ({"method": "mas", "options": {"samples": 300}}, "options.strength", (0.001, 0.01, 0.1)),
    "L2-SP": ({"method": "l2-sp"}, "options.strength", (0.001, 0.01, 0.1)),
    "LwF": ({"method": "lwf"}, "options.strength", (0.1, 1.0, 10.0)),
}
UNTUNED = "RWalk, laplace, untuned"
FIGURES = ("average_accuracy", "forgetting", "learning_accuracy")


def main() -> None:
    """Tune, confirm, store, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/fair-fights"), help="folder of single runs, kept")
    parser.add_argument("--json", type=Path, default=Path("reproductions/fair-fights/results.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/fair-fights.md"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--page-only", action="store_true", help="write the page from what is stored")
    options = parser.parse_args()
    if not options.page_only:
        found = {}
        date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        for name, base in PROBLEMS.items():
            found[name] = _fight(base, options.runs, options.jobs)
            write_json({"date": date, "versions": versions(), "problems": found}, options.json)
    stored = json.loads(options.json.read_text(encoding="utf-8"))
    _draw(stored, options.json.parent.with_suffix(".svg"))
    options.page.write_text(_page(stored), encoding="utf-8")


def _fight(problem: dict[str, Any], folder: Path, jobs: int) -> dict[str, Any]:
    base = {key: value for key, value in problem.items() if key != "seeds"}
    seeds = list(problem.get("seeds", CONFIRMATION))
    tuned: dict[str, dict[str, Any]] = {}
    tried: dict[str, list[dict[str, Any]]] = {}
    for label, (what, key, values) in METHODS.items():
        if not values:
            tuned[label] = what
            continue
        specs = candidates({**base, **what}, {key: list(values)})
        rows = summarise(run_all(specs, DEVELOPMENT, jobs=jobs, folder=folder), list(specs))
        tried[label] = [{"value": value, **_figures(row)} for value, row in zip(values, rows, strict=True)]
        tuned[label] = merged(what, nested({key: values[rows.index(best(rows))]}))
    tuned[UNTUNED] = METHODS["RWalk, laplace"][0]
    plan = build_comparison({"base": base, "runs": tuned, "seeds": seeds, "intransigence": False})
    rows = summarise(run_all(plan.specs(), seeds, jobs=jobs, folder=folder), list(tuned), "RWalk, laplace")
    return {"base": base, "chosen": tuned, "tried": tried, "rows": [row.to_dict() for row in rows]}


def _figures(row: Row) -> dict[str, float | None]:
    return {name: None if (spread := row.spread(name)) is None else spread[0] for name in FIGURES}


def _draw(stored: dict[str, Any], path: Path) -> None:
    """Each method's front over λ: what is forgotten against what is not learned; labels in a column, by height."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    problems = stored["problems"]
    figure = Figure(figsize=(7.0 * len(problems), 5.0), layout="constrained")
    for axes, (name, problem) in zip(
        figure.subplots(1, len(problems), squeeze=False)[0], problems.items(), strict=True
    ):
        ends = []
        for index, (label, every) in enumerate(problem["tried"].items()):
            points = [point for point in every if point["average_accuracy"] is not None]  # the others diverged
            if points:
                x = [point["forgetting"] for point in points]
                y = [1.0 - point["learning_accuracy"] for point in points]
                axes.plot(x, y, "o-", color=f"C{index}", markersize=3, linewidth=1)
                ends.append((y[-1], x[-1], label, f"C{index}"))
        for place, (y_end, x_end, label, color) in enumerate(sorted(ends)):
            axes.annotate(
                label, (x_end, y_end), xytext=(1.03, (place + 0.5) / len(ends)), textcoords="axes fraction",
                fontsize=8, color=color, va="center", arrowprops={"arrowstyle": "-", "color": color, "lw": 0.4},
            )  # fmt: skip
        axes.set(title=name, xlabel="forgetting", ylabel="error on each task when it was just learned", yscale="log")
        axes.title.set_fontsize(9)
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "rwalk", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})


def _page(stored: dict[str, Any]) -> str:
    torch_version = stored["versions"]["torch"]
    lines = [
        "# Fair fights",
        "",
        f"Written by `make fair-fights` ({stored['date']}, torch {torch_version}). Each method's strength is chosen "
        "among three values a factor of ten apart, on a tenth of the training data that is held out, with "
        f"{len(DEVELOPMENT)} stream(s); what was chosen then learns {len(CONFIRMATION)} other streams (other "
        "permutations, orders, weights; fewer where the heading says so) and is judged on test data. Learning rate, "
        "epochs and network (MLP 256-256, on CIFAR-100 four convolutions) are the same for all. Avalanche's and "
        "CapyMOA's RWalk are the paper's with other windows and half the strength. “Untuned” is "
        "`RWalkConfig.laplace()` with its own λ on every problem. A: average accuracy in %, F: forgetting, mean ± "
        "standard deviation; the last column is the difference in A to tuned laplace, seed by seed, with its 95 % "
        "interval.",
        "",
    ]
    ranks: dict[str, list[int]] = {}
    for name, problem in stored["problems"].items():
        rows = sorted(problem["rows"], key=lambda row: -row["mean"]["average_accuracy"])
        streams = max(len(row["seeds"]) for row in rows)
        lines += [
            f"## {name[0].upper()}{name[1:]}" + ("" if streams == len(CONFIRMATION) else f" ({streams} streams)"),
            "",
            "| | λ | A % | F | against laplace |",
            "|---|---:|---:|---:|---:|",
        ]
        for rank, row in enumerate((row for row in rows if row["label"] != UNTUNED), start=1):
            ranks.setdefault(row["label"], []).append(rank)
        for row in rows:
            lines.append(_row(row, problem["chosen"][row["label"]], streams))
        lines.append("")
    missing = [name for name in PROBLEMS if name not in stored["problems"]]
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
        "On the development streams: each line is a method, each point one of its three strengths (those that diverged "
        "are left out); a label leads to the largest. Lower left is better.",
        "",
        "![fronts](../reproductions/fair-fights.svg)",
    ]
    return "\n".join(lines) + "\n"


def _row(row: dict[str, Any], chosen: dict[str, Any], streams: int) -> str:
    strength = chosen.get("rwalk", {}).get("ewc_lambda", chosen.get("options", {}).get("strength"))
    told = "default" if row["label"] == UNTUNED else "" if strength is None else f"{strength:g}"
    accuracy = f"{100 * row['mean']['average_accuracy']:.1f} ± {100 * row['deviation']['average_accuracy']:.1f}"
    forgetting = f"{row['mean']['forgetting']:.3f} ± {row['deviation']['forgetting']:.3f}"
    against = row["differences"].get("average_accuracy")
    difference = "" if against is None else f"{100 * against['mean']:+.1f}"
    if against is not None and against["low"] is not None:
        difference += f" [{100 * against['low']:.1f}, {100 * against['high']:.1f}]"
    done = len(row["seeds"])
    label = row["label"] if done == streams else f"{row['label']} ({done} of {streams}: the others diverged)"
    return f"| {label} | {told} | {accuracy} | {forgetting} | {difference} |"


if __name__ == "__main__":
    main()
