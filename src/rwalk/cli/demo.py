"""The demonstration: does it forget less?"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

from rwalk.cli.display import percent, show, show_json, spread
from rwalk.cli.working import Counter
from rwalk.experiments import RunResult, RunSpec, run_all, write_result
from rwalk.experiments.results import check_folder
from rwalk.experiments.summary import mean_and_deviation

__all__ = ["SEEDS", "demo"]

SEEDS = 5
EXEMPLARS = 2

#: Two tasks, one after the other, and nothing kept but RWalk's state. λ was chosen on other seeds.
TWO_TASKS: dict[str, Any] = {
    "benchmark": "permuted-digits", "n_experiences": 2, "shuffle_classes": True, "hidden": (512,),
    "epochs": 10, "batch_size": 32, "lr": 2e-3,
}  # fmt: skip
KEEPING = {
    "fine-tuning, two tasks": RunSpec(method="fine-tuning", **TWO_TASKS),
    "RWalk, two tasks": RunSpec(
        method="rwalk", rwalk={"ewc_lambda": 0.2, "ewc_alpha": 0.01, "alpha_warmup": True}, **TWO_TASKS
    ),
}
SPECS = {
    "fine-tuning": RunSpec(benchmark="split-digits", method="fine-tuning"),
    "RWalk": RunSpec(benchmark="split-digits", method="rwalk"),
    "replay": RunSpec(benchmark="split-digits", method="fine-tuning", exemplars=EXEMPLARS),
    "RWalk + replay": RunSpec(benchmark="split-digits", method="rwalk", exemplars=EXEMPLARS),
}


def demo(console: Console, seeds: int, out: Path | None, *, overwrite: bool = False, as_json: bool = False) -> None:
    """Run every method over the seeds and print what became of accuracy and forgetting.

    Args:
        console: Where to print.
        seeds: Runs of each method.
        out: Keep each run's ``result.json`` here, if given.
        overwrite: Replace runs stored there.
        as_json: Print accuracy matrix and metrics of every run as JSON, and nothing else.

    Raises:
        FileExistsError: A run is stored there and ``overwrite`` is False.
    """
    folders = {}
    if out is not None:
        places = {
            (label, seed): out / label.replace(" ", "") / f"seed-{seed}"
            for label in [*KEEPING, *SPECS]
            for seed in range(seeds)
        }
        folders = {key: check_folder(folder, overwrite=overwrite) for key, folder in places.items()}
    if as_json:
        both = _run({**KEEPING, **SPECS}, seeds, folders)
        show_json(console, {label: [result.to_dict() for result in found] for label, found in both.items()})
        return
    console.print(
        "A network learns to read digits (A), then the same digits with their pixels in another order (B). While it "
        "learns B, no image of A is there.\n",
        highlight=False,
    )
    begin = perf_counter()
    _kept(console, _run(KEEPING, seeds, folders))
    console.print(f"That took {perf_counter() - begin:.0f} s.\n", highlight=False)
    console.print(
        "Harder: ten digits arrive two at a time; after each pair the old ones are gone "
        f"(replay keeps {EXEMPLARS} images of each). One output layer for all ten, no hint of the pair.\n",
        highlight=False,
    )
    begin = perf_counter()
    results = _run(SPECS, seeds, folders)
    _first_pair(console, results)
    _summary(console, results)
    _verdict(console, results)
    console.print(f"That took {perf_counter() - begin:.0f} s.", highlight=False)


def _run(specs: dict[str, RunSpec], seeds: int, folders: dict[tuple[str, int], Path]) -> dict[str, list[RunResult]]:
    """The results of each spec, in the order of seeds."""
    results: dict[str, list[RunResult]] = {label: [] for label in specs}
    with Counter(seeds * len(specs)) as counter:
        for outcome in run_all(specs, range(seeds)):
            if outcome.result is None:
                raise RuntimeError(f"{outcome.label}, seed {outcome.seed}: {outcome.error}")
            results[outcome.label].append(outcome.result)
            counter.count(outcome)
            if folders:
                write_result(outcome.result.to_dict(), folders[outcome.label, outcome.seed])
    for found in results.values():
        found.sort(key=lambda result: result.spec.seed)
    return results


def _kept(console: Console, results: dict[str, list[RunResult]]) -> None:
    seeds = len(next(iter(results.values())))
    table = Table(title=f"Accuracy in % (mean ± standard deviation, {seeds} seeds)", title_justify="left")
    table.add_column("")
    for name in ("A after A", "A after B", "B after B"):
        table.add_column(name, justify="right")
    for label, found in results.items():
        cells = []
        for row, column in ((0, 0), (1, 0), (1, 1)):
            cells.append(spread([float(result.matrix.values[row, column]) for result in found]))
        table.add_row(label.partition(",")[0], *cells)
    show(console, table)


def _first_pair(console: Console, results: dict[str, list[RunResult]]) -> None:
    table = Table(title="What is left of the first pair (mean accuracy in %)", title_justify="left")
    table.add_column("after pair")
    pairs = len(results["RWalk"][0].matrix.values)
    for index in range(pairs):
        table.add_column(str(index + 1), justify="right")
    for label, found in results.items():
        means = [mean_and_deviation([float(r.matrix.values[k, 0]) for r in found])[0] for k in range(pairs)]
        table.add_row(label, *(percent(value) for value in means))
    show(console, table)


def _summary(console: Console, results: dict[str, list[RunResult]]) -> None:
    seeds = len(results["RWalk"])
    table = Table(title=f"After all five pairs (mean ± standard deviation, {seeds} seeds)", title_justify="left")
    table.add_column("method")
    for name in ("average accuracy %", "forgetting %", "learning accuracy %"):
        table.add_column(name, justify="right")
    for label, found in results.items():
        names = ("average_accuracy", "forgetting", "learning_accuracy")
        table.add_row(label, *(spread([result.metrics[name] or 0.0 for result in found]) for name in names))
    show(console, table)


def _verdict(console: Console, results: dict[str, list[RunResult]]) -> None:
    """RWalk + replay against replay alone, seed by seed."""
    gains = {}
    for name in ("average_accuracy", "forgetting"):
        pairs = zip(results["RWalk + replay"], results["replay"], strict=True)
        gains[name] = [(with_.metrics[name] or 0.0) - (without.metrics[name] or 0.0) for with_, without in pairs]
    accuracy, forgetting = (mean_and_deviation(values) for values in gains.values())
    wins = sum(gain > 0 for gain in gains["average_accuracy"])
    console.print(
        "RWalk + replay against replay alone, same seeds: "
        f"accuracy {100 * accuracy[0]:+.1f} ± {percent(accuracy[1])} points, "
        f"forgetting {100 * forgetting[0]:+.1f} ± {percent(forgetting[1])} points; "
        f"more accurate on {wins} of {len(gains['forgetting'])} seeds.\n"
        "RWalk alone cannot hold on here: with one output layer and no old image, the newest pair takes every answer. "
        "A few exemplars, or a head for each task, are what it works with.",
        highlight=False,
    )
