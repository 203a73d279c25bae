"""Two tasks, one after the other, watched: the preset, its parts, and other methods on images, texts and LoRA.

The pairs are those of ``benchmarks.choose_lambda``. Each strength is chosen on two streams of their own, by the mean of
A and B on a fifth of the training data that is held out; where the best is at the end of those tried, the next is tried
too, up to twice. Then five other streams are judged on test data. A task begins with a fresh optimizer state.

Run it: python -m benchmarks.two_tasks --json benchmarks/results/two_tasks.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.choose_lambda import EXAMPLES, PROBLEMS, Problem, train_on, trained
from benchmarks.strengths import tried
from rwalk import RWalk, RWalkConfig
from rwalk.experiments.results import versions
from rwalk.experiments.summary import half_interval

DEVELOPMENT, CONFIRMATION = (10, 11), (20, 21, 22, 23, 24)
CHOSEN = ("digits", "text", "lora")
LAPLACE = (40.0, 400.0, 4000.0, 40000.0, 400000.0)
SCALED = (0.1, 1.0, 10.0, 100.0, 1000.0)
#: By label: preset, changes to it, and the strengths to try; none: the preset's own.
METHODS: dict[str, tuple[str, dict[str, Any], Sequence[float]]] = {
    "laplace, λ 4000": ("laplace", {}, ()),
    "laplace": ("laplace", {}, LAPLACE),
    "Fisher alone": ("laplace", {"terms": "fisher"}, LAPLACE),
    "score alone": ("laplace", {"terms": "score"}, LAPLACE),
    "anchors at the last weights": ("laplace", {"anchor_at": "last"}, LAPLACE),
    "Fisher of the steps": (
        "laplace",
        {"fisher_source": "step", "fisher_samples": None, "ewc_alpha": 0.01, "alpha_warmup": True},
        LAPLACE,
    ),
    "Fisher alone, unscaled, steps by the gradient (EWC)": (
        "laplace",
        {"terms": "fisher", "scaling": "none", "anchor_at": "last", "penalty": "gradient"},
        (0.1, 1.0, 10.0, 100.0, 1000.0),
    ),
    "paper": ("paper", {}, SCALED),
    "paper, α 0.01": ("paper", {"ewc_alpha": 0.01, "alpha_warmup": True}, SCALED),
    "EWC++, α 0.01": ("ewc_plus_plus", {"ewc_alpha": 0.01, "alpha_warmup": True}, SCALED),
    "Path Integral": ("path_integral", {}, (0.001, 0.01, 0.1, 1.0, 10.0)),
    "fine-tuning": ("paper", {"ewc_lambda": 0.0}, ()),
}
Figures = tuple[float, float]


def learn(name: str, seed: int, config: RWalkConfig, *, held_out: bool) -> Figures:
    """Learn A, then B; what is left of A and what was learned of B, in %.

    Args:
        name: Of the pair.
        seed: Of data, weights and batches.
        config: Of RWalk.
        held_out: Judge by a fifth of the training data, which is not learned, instead of test data.
    """
    problem = PROBLEMS[name](seed)
    rest: tuple[Any, ...] = ()
    if held_out:
        cut = len(problem.tasks[0][1]) * 4 // 5
        rest = tuple((x[cut:], y[cut:]) for x, y in problem.tasks)
        (a, b), (c, d) = ((x[:cut], y[:cut]) for x, y in problem.tasks)
        problem = replace(problem, tasks=((a, b), (c, d)))
    optimizer = problem.optimizer(trained(problem.model))
    rwalk = RWalk(problem.model, optimizer, config)
    torch.manual_seed(seed)
    for task in range(2):
        train_on(problem, problem.model, optimizer, task)
        if task == 0:
            if config.fisher_source == "step":
                rwalk.consolidate()
            else:
                rwalk.consolidate(_in_batches(problem, task), lambda batch: scores(problem.model, batch[0]))
            optimizer.state.clear()
    rwalk.detach()
    if held_out:
        return right(problem.model, *rest[0]), right(problem.model, *rest[1])
    return problem.score(problem.model, 0), problem.score(problem.model, 1)


def scores(model: nn.Module, x: Tensor) -> Tensor:
    """Scores of classes, or of words after each place, shape (B, …, classes)."""
    found: Tensor = model(x) if x.is_floating_point() else model(input_ids=x).logits
    return found


@torch.no_grad()
def right(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of classes, or of the words that come next, that are named correctly, in %."""
    named = scores(model, x).argmax(-1)
    if y.dim() > 1:
        named, y = named[:, 1:-1], y[:, 2:]
    return 100 * float((named == y).float().mean())


def _in_batches(problem: Problem, task: int) -> Iterator[tuple[Tensor, Tensor]]:
    x, y = problem.tasks[task]
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    for index in order.split(100):
        yield x[index], y[index]


def study(name: str) -> dict[str, Any]:
    """Choose every method's strength, then run all of them on the other streams."""
    rows = []
    for label, (preset, changes, strengths) in METHODS.items():
        config = RWalkConfig.preset(preset, **changes)
        held_out: dict[float, float] = {}
        if strengths:
            held_out, best = tried(strengths, partial(_on_held_out, name, config), float)
            config = config.replace(ewc_lambda=best)
        found = [learn(name, seed, config, held_out=False) for seed in CONFIRMATION]
        rows.append(
            {
                "label": label,
                "lambda": config.ewc_lambda,
                "tried": [{"value": value, "held_out": mean} for value, mean in held_out.items()],
                "a": [a for a, _ in found],
                "b": [b for _, b in found],
            }
        )
        print(f"{name:>7} {label}: λ {config.ewc_lambda:g}, mean of A and B {told(rows[-1], rows[0])}", flush=True)
    return {"development": list(DEVELOPMENT), "confirmation": list(CONFIRMATION), "rows": rows}


def _on_held_out(name: str, config: RWalkConfig, strengths: Sequence[float]) -> list[float]:
    """The mean of A and B on held-out data at each strength."""
    changed = [config.replace(ewc_lambda=value) for value in strengths]
    return [fmean(fmean(learn(name, seed, each, held_out=True)) for seed in DEVELOPMENT) for each in changed]


def means(row: dict[str, Any]) -> list[float]:
    """The mean of A and B, stream by stream."""
    return [fmean(pair) for pair in zip(row["a"], row["b"], strict=True)]


def told(row: dict[str, Any], against: dict[str, Any]) -> str:
    """The mean of A and B, and its difference to another method, stream by stream, with the 95 % interval."""
    mine, others = means(row), means(against)
    line = f"{fmean(mine):.1f} ± {stdev(mine):.1f}"
    if mine == others:
        return line
    difference = fmean(mine) - fmean(others)
    half = half_interval([one - other for one, other in zip(mine, others, strict=True)])
    return f"{line} ({difference:+.1f} [{difference - half:.1f}, {difference + half:.1f}])"


def markdown(found: dict[str, Any]) -> str:
    """A table of stored results: methods by problems, differences to the preset with its λ chosen."""
    problems = found["problems"]
    lines = ["| | " + " | ".join(problems) + " |", "|---|" + "---:|" * len(problems)]
    for label in METHODS:
        cells = []
        for problem in problems.values():
            rows = {row["label"]: row for row in problem["rows"]}
            row = rows[label]
            chosen = f"; λ {row['lambda']:g}" if row["tried"] else ""
            cells.append(told(row, rows["laplace"]) + chosen)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", default=CHOSEN, choices=tuple(PROBLEMS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, metavar="FILE", help="print what is stored there as a table; run nothing")
    options = parser.parse_args()
    if options.table is not None:
        print(markdown(json.loads(options.table.read_text(encoding="utf-8"))))
        return
    sys.path.insert(0, str(EXAMPLES))
    torch.set_num_threads(1)
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    found: dict[str, Any] = {"date": date, "versions": versions(), "problems": {}}
    for name in options.problems:
        found["problems"][name] = study(name)
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
