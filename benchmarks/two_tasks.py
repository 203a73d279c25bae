"""Two tasks, one after the other, watched: the preset, its parts, and other methods on images, texts and LoRA.

The pairs are those of ``benchmarks.choose_lambda``. Each strength is chosen on two streams of their own, by the mean of
A and B on a fifth of the training data that is held out; where the best is at the end of those tried, the next is tried
too, up to twice. Then five other streams are judged on test data. A task begins with a fresh optimizer state. In one
row nothing is chosen beforehand: ``choose_lambda`` tries strengths when B comes, by 300 unlabelled samples of A.

Run it: python -m benchmarks.two_tasks --json benchmarks/results/two_tasks.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from statistics import fmean, stdev
from typing import Any

import torch

from benchmarks.choose_lambda import EXAMPLES, PROBLEMS
from benchmarks.pairs import learn, learn_by_trial
from benchmarks.strengths import tried
from benchmarks.studies import begun, command_line
from rwalk import RWalkConfig
from rwalk.experiments.results import write_json
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
BY_TRIAL = "laplace, λ by choose_lambda"
ALL = (*METHODS, BY_TRIAL)


def study(name: str, methods: Iterable[str]) -> list[dict[str, Any]]:
    """Choose every method's strength, then run all of them on the other streams; a row each."""
    rows = []
    for label in methods:
        row = by_trial(name) if label == BY_TRIAL else chosen_before(name, label)
        rows.append({"label": label, **row})
        print(f"{name:>7} {label}: λ {strength(row)}, mean of A and B {told(row, row)}", flush=True)
    return rows


def chosen_before(name: str, label: str) -> dict[str, Any]:
    """A row of which the strength is chosen on the development streams."""
    preset, changes, strengths = METHODS[label]
    config = RWalkConfig.preset(preset, **changes)
    held_out: dict[float, float] = {}
    if strengths:
        held_out, best = tried(strengths, partial(_on_held_out, name, config), float)
        config = config.replace(ewc_lambda=best)
    found = [learn(name, seed, config, held_out=False) for seed in CONFIRMATION]
    values = [{"value": value, "held_out": mean} for value, mean in held_out.items()]
    return {"lambda": config.ewc_lambda, "tried": values, "a": [a for a, _ in found], "b": [b for _, b in found]}


def by_trial(name: str) -> dict[str, Any]:
    """A row of which each stream has its own strength."""
    found = [learn_by_trial(name, seed, RWalkConfig.laplace()) for seed in CONFIRMATION]
    figures, strengths = [each for each, _ in found], [strength for _, strength in found]
    return {"lambda": strengths, "tried": [], "a": [a for a, _ in figures], "b": [b for _, b in figures]}


def _on_held_out(name: str, config: RWalkConfig, strengths: Sequence[float]) -> list[float]:
    """The mean of A and B on held-out data at each strength."""
    changed = [config.replace(ewc_lambda=value) for value in strengths]
    return [fmean(fmean(learn(name, seed, each, held_out=True)) for seed in DEVELOPMENT) for each in changed]


def means(row: dict[str, Any]) -> list[float]:
    """The mean of A and B, stream by stream."""
    return [fmean(pair) for pair in zip(row["a"], row["b"], strict=True)]


def strength(row: dict[str, Any]) -> str:
    """A row's λ; where each stream has its own, all of them in ascending order."""
    values = row["lambda"] if isinstance(row["lambda"], list) else [row["lambda"]]
    return "/".join(f"{value:g}" for value in sorted(values))


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
    for label in ALL:
        cells = []
        for problem in problems.values():
            rows = {row["label"]: row for row in problem["rows"]}
            if label not in rows:
                cells.append("–")
                continue
            row = rows[label]
            chosen = f"; λ {strength(row)}" if row["tried"] or label == BY_TRIAL else ""
            cells.append(told(row, rows["laplace"]) + chosen)
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", default=CHOSEN, choices=tuple(PROBLEMS))
    parser.add_argument("--methods", nargs="+", default=ALL, choices=ALL, help="other rows stay as they are stored")
    options = command_line(parser, markdown)
    sys.path.insert(0, str(EXAMPLES))
    torch.set_num_threads(1)
    stored = options.json is not None and options.json.is_file()
    found = json.loads(options.json.read_text(encoding="utf-8"))["problems"] if stored else {}
    for name in options.problems:
        rows = {row["label"]: row for row in found.get(name, {"rows": []})["rows"]}
        rows |= {row["label"]: row for row in study(name, options.methods)}
        known = [rows[label] for label in ALL if label in rows]
        found[name] = {"development": list(DEVELOPMENT), "confirmation": list(CONFIRMATION), "rows": known}
        if options.json is not None:
            write_json({**begun(), "problems": found}, options.json)


if __name__ == "__main__":
    main()
