"""Every method with λ tuned on held-out data over the same budget, then on streams that chose nothing: one page.

``make fair-fights``, or ``python -m benchmarks.fair_fights``: results go to ``reproductions/fair-fights/results.json``,
the page to ``docs/fair-fights.md``. Runs that are finished in ``--runs`` are not run again, so that it may be stopped
and started; ``--problem permuted`` runs those whose name begins so, ``--methods PI`` that method, and the others are
left as they are stored.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.fair_fights_page import AVERAGED, UNTUNED, draw, page
from benchmarks.strengths import tried
from benchmarks.studies import begun
from rwalk.experiments import run_all, summarise
from rwalk.experiments.comparison import build_comparison
from rwalk.experiments.loading import merged, nested
from rwalk.experiments.results import write_json
from rwalk.experiments.summary import Row, paired_difference
from rwalk.experiments.tune import candidates

__all__ = ["main"]

DEVELOPMENT, CONFIRMATION = (20,), (200, 201, 202, 203, 204)
PERMUTED = {"shuffle_classes": True, "batch_size": 10, "optimizer": "sgd", "lr": 0.1}
#: With ``development`` in place of DEVELOPMENT where a run is short.
PROBLEMS: dict[str, dict[str, Any]] = {
    "permuted digits, 5 tasks, no exemplars": {
        "benchmark": "permuted-digits", "n_experiences": 5, "epochs": 3, **PERMUTED, "development": (20, 21, 22),
    },
    "split digits, 5 × 2 classes, single head, 2 exemplars a class": {
        "benchmark": "split-digits", "shuffle_classes": True, "epochs": 8, "batch_size": 32, "replay_batch_size": 128,
        "heads": "masked", "exemplars": 2, "optimizer": "adam", "lr": 1e-3, "development": (20, 21, 22),
    },
    "split digits, nearest mean of 2 exemplars a class": {
        "benchmark": "split-digits", "shuffle_classes": True, "epochs": 8, "batch_size": 32, "replay_batch_size": 32,
        "heads": "masked", "exemplars": 2, "sampler": "mean-of-features", "classifier": "nearest-mean",
        "optimizer": "adam", "lr": 1e-3, "development": (20, 21, 22),
    },
    "split MNIST, 5 × 2 classes, single head, 10 exemplars a class": {
        "benchmark": "split-mnist", "shuffle_classes": True, "epochs": 1, "batch_size": 64,
        "replay_batch_size": "balanced", "heads": "masked", "exemplars": 10, "sampler": "mean-of-features",
        "optimizer": "adam", "lr": 2e-4, "development": (20, 21),
    },
    "split MNIST, nearest mean of 10 exemplars a class": {
        "benchmark": "split-mnist", "shuffle_classes": True, "epochs": 1, "batch_size": 64, "replay_batch_size": 4,
        "heads": "masked", "exemplars": 10, "sampler": "mean-of-features", "classifier": "nearest-mean",
        "optimizer": "adam", "lr": 1e-3, "development": (20, 21),
    },
    "permuted MNIST, 6 tasks, no exemplars": {
        "benchmark": "permuted-mnist", "n_experiences": 6, "epochs": 1, **PERMUTED,
    },
    "CIFAR-100, 5 × 10 classes, a head a task, no exemplars": {
        "benchmark": "split-cifar100", "n_experiences": 10, "only_first": 5, "shuffle_classes": True, "epochs": 2,
        "batch_size": 16, "heads": "multi", "task_labels": True, "optimizer": "adam", "lr": 1e-3, "model": "paper-cnn",
        "model_options": {"channels": [16, 16, 32, 32], "dropout": 0.0},
        "precision": "bfloat16",
    },
}  # fmt: skip
#: By label: what the run is, the key of its strength, and the three values that are tried, a factor of ten apart.
METHODS: dict[str, tuple[dict[str, Any], str, tuple[float, ...]]] = {
    "fine-tuning": ({"method": "fine-tuning"}, "", ()),
    "fine-tuning, at the average": ({"method": "fine-tuning", "average_weights": True}, "", ()),
    "RWalk, laplace": ({"method": "rwalk-laplace"}, "rwalk.ewc_lambda", (400.0, 4000.0, 40000.0)),
    "RWalk, laplace, at the average": (
        {"method": "rwalk-laplace", "average_weights": True},
        "rwalk.ewc_lambda",
        (400.0, 4000.0, 40000.0),
    ),
    "RWalk, paper": ({"method": "rwalk"}, "rwalk.ewc_lambda", (0.1, 1.0, 10.0)),
    "RWalk, paper, at the average": (
        {"method": "rwalk", "average_weights": True},
        "rwalk.ewc_lambda",
        (0.1, 1.0, 10.0),
    ),
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
AGAINST = "RWalk, laplace"
ALL = (*METHODS, AGAINST + UNTUNED, f"{AGAINST}{AVERAGED}{UNTUNED}")
FIGURES = ("average_accuracy", "forgetting", "learning_accuracy")


def main() -> None:
    """Tune, confirm, store, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/fair-fights"), help="folder of single runs, kept")
    parser.add_argument("--json", type=Path, default=Path("reproductions/fair-fights/results.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/fair-fights.md"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--problem", default="", help="only those whose name begins so")
    parser.add_argument("--methods", nargs="+", default=list(ALL), choices=ALL, help="others stay as they are stored")
    parser.add_argument("--page-only", action="store_true", help="write the page from what is stored")
    options = parser.parse_args()
    if not options.page_only:
        asked = [name for name in PROBLEMS if name.lower().startswith(options.problem.lower())]
        if not asked:
            parser.error(f"--problem {options.problem!r}: expected the beginning of one of {', '.join(PROBLEMS)}")
        found = json.loads(options.json.read_text(encoding="utf-8"))["problems"] if options.json.is_file() else {}
        for name in asked:
            found[name] = _fight(PROBLEMS[name], options.methods, found.get(name, {}), options.runs, options.jobs)
            known = {name: found[name] for name in PROBLEMS if name in found}
            write_json({**begun(), "problems": known}, options.json)
    stored = json.loads(options.json.read_text(encoding="utf-8"))
    draw(stored, options.json.parent.with_suffix(".svg"))
    options.page.write_text(page(stored, PROBLEMS), encoding="utf-8")


def _fight(
    problem: dict[str, Any], methods: Sequence[str], stored: dict[str, Any], folder: Path, jobs: int
) -> dict[str, Any]:
    """Tune and confirm some methods; what is stored of the others joins them, unless it is of other settings."""
    base = {key: value for key, value in problem.items() if key != "development"}
    seeds, development = list(CONFIRMATION), list(problem.get("development", DEVELOPMENT))
    plain = json.loads(json.dumps([base, development]))  # as they are stored
    if stored and [stored["base"], stored["development"]] != plain:
        methods, stored = ALL, {}
    chosen: dict[str, dict[str, Any]] = {}
    points: dict[str, list[dict[str, Any]]] = {}

    def run(what: dict[str, Any], key: str, values: Sequence[float]) -> list[Row]:
        specs = candidates({**base, **what}, {key: list(values)})
        return summarise(run_all(specs, development, jobs=jobs, folder=folder), list(specs))

    for label in methods:
        what, key, values = METHODS[label.removesuffix(UNTUNED)]
        if not values or label.endswith(UNTUNED):
            chosen[label] = what
            continue
        found, best = tried(values, partial(run, what, key), _accuracy)
        points[label] = [{"value": value, **_figures(row)} for value, row in found.items()]
        chosen[label] = merged(what, nested({key: best}))
    plan = build_comparison({"base": base, "runs": chosen, "seeds": seeds, "intransigence": False})
    new = {
        row.label: row.to_dict()
        for row in summarise(run_all(plan.specs(), seeds, jobs=jobs, folder=folder), list(chosen))
    }
    rows = {row["label"]: row for row in stored.get("rows", [])} | new
    chosen, points = {**stored.get("chosen", {}), **chosen}, {**stored.get("tried", {}), **points}
    return {
        "base": base,
        "development": development,
        "chosen": {label: chosen[label] for label in ALL if label in chosen},
        "tried": {label: points[label] for label in ALL if label in points},
        "rows": [
            {**rows[label], "differences": _differences(rows[label], rows.get(AGAINST))}
            for label in ALL
            if label in rows
        ],
    }


def _differences(row: dict[str, Any], base: dict[str, Any] | None) -> dict[str, Any]:
    """By figure, this row less another, over the seeds that both have; none to itself."""
    if base is None or row is base:
        return {}
    both = [seed for seed in row["seeds"] if seed in base["seeds"]]
    pairs = {name: [[of["seeds"][seed][name] for seed in both] for of in (row, base)] for name in FIGURES}
    return {name: asdict(paired_difference(ours, theirs)) for name, (ours, theirs) in pairs.items() if both}


def _accuracy(row: Row) -> float:
    """Of runs that all finished; none at all of others."""
    spread = row.spread("average_accuracy")
    return -1.0 if row.errors or spread is None else spread[0]


def _figures(row: Row) -> dict[str, float | None]:
    return {name: None if (spread := row.spread(name)) is None else spread[0] for name in FIGURES}


if __name__ == "__main__":
    main()
