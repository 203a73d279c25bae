"""Stored runs for the tests of reports: written as commands write them, without training."""

import random
from pathlib import Path

from rwalk.experiments import Outcome, RunResult, RunSpec, summarise
from rwalk.experiments.pool import run_name
from rwalk.experiments.results import write_json, write_result
from rwalk.metrics import AccuracyMatrix

HOSTILE = (
    "</script><script>window.hurt = 1</script><b>b</b> <img src=x onerror='window.hurt=1'> %{y} {{7*7}} $x^2$ \x1b"
)


def result(method="rwalk", seed=0, tasks=3, keep=0.8, name="fc", **settings):
    """A run whose accuracies follow from ``keep`` and the seed."""
    spec = RunSpec(benchmark="split-digits", method=method, seed=seed, n_experiences=tasks, **settings)
    rng, matrix = random.Random(f"{seed} {keep}"), AccuracyMatrix(tasks)
    matrix.record(-1, [0.1] * tasks)
    for task in range(tasks):
        row = [0.9 * keep ** (task - k) + rng.uniform(0, 0.02) if k <= task else 0.0 for k in range(tasks)]
        matrix.record(task, row)
    course = [
        {
            "experience": e,
            "step": [5, 10],
            "loss": [2.0 - e / 10, 0.5],
            "penalty": [None, None] if not e else [0.1, 0.3],
        }
        for e in range(tasks)
    ]
    shares = [[0.5 + e / 10, 0.5 - e / 10] for e in range(tasks)]
    layers = [
        {"name": f"{name}{i}", "weights": 10 * (i + 1), "drift": [None, *[0.1] * (tasks - 1)]}
        | {key: [share[i] for share in shares] for key in ("importance", "fisher", "score", "held")}
        for i in range(2)
    ]  # fmt: skip
    record = {"course": course, "looks": list(range(tasks)), "layers": layers if method == "rwalk" else []}
    return RunResult(spec, matrix, 1.5, (*[None] * (tasks - 1), 0.93), record)


def run_folder(folder: Path, **settings) -> Path:
    """What ``rwalk run`` leaves."""
    write_result(result(**settings).to_dict(), folder)
    return folder


def comparison(
    folder: Path, labels: dict, seeds: int = 3, against: str | None = None, summary: str = "comparison.json"
):
    """What ``rwalk compare`` leaves; with another ``summary`` what ``rwalk tune`` does.

    Args:
        folder: Where.
        labels: Settings by label, for ``result``.
        seeds: How many.
        against: The label compared with.
        summary: ``comparison.json`` or ``tuning.json``.
    """
    outcomes = []
    for label, settings in labels.items():
        for seed in range(seeds):
            found = result(seed=seed, **settings)
            write_result(found.to_dict(), folder / "runs" / run_name(found.spec))
            outcomes.append(Outcome(label, seed, found))
    rows = [row.to_dict() for row in summarise(outcomes, list(labels), against)]
    told = (
        {"against": against or list(labels)[-1]}
        if summary == "comparison.json"
        else {"best": against, "metric": "average_accuracy"}
    )
    write_json({**told, "rows": rows}, folder / summary)
    return folder
