"""The preset with one part changed: how importances are scaled, how tasks are put together, how the penalty comes in.

On the streams of the fair fights that are short, on their development seeds and held-out data: what chooses, and
confirms nothing. Each variant's strength is chosen by the same rule; read differences below the deviation as none.

Run it: python -m benchmarks.variants --json reproductions/laboratory/variants.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

from benchmarks.fair_fights import PROBLEMS
from benchmarks.strengths import tried
from benchmarks.studies import begun, command_line
from rwalk.experiments.results import write_json
from rwalk.experiments.runner import run
from rwalk.experiments.spec import RunSpec
from rwalk.experiments.summary import half_interval
from rwalk.training import BasePlugin, RWalkPlugin

STREAMS = {name: PROBLEMS[name] for name in PROBLEMS if "digits" in name and "nearest" not in name}
Tensors = Mapping[str, Tensor]
Scale = Callable[[Tensors], dict[str, Tensor]]
#: One strength for all that is a share, so that weights are held alike on average.
SHARES, OVER_LARGEST = (400.0, 4000.0, 40000.0), (0.1, 1.0, 10.0)


def shares(scores: Tensors) -> dict[str, Tensor]:
    """Over the sum of all."""
    whole = sum(float(value.sum()) for value in scores.values())
    return {name: value / whole for name, value in scores.items()}


def shares_by_layer(scores: Tensors) -> dict[str, Tensor]:
    """Each tensor over its own sum, times its share of the weights: no layer counts more than its size."""
    weights = sum(value.numel() for value in scores.values())
    return {name: value / value.sum() * (value.numel() / weights) for name, value in scores.items()}


def largest_by_layer(scores: Tensors) -> dict[str, Tensor]:
    """Each tensor over its own largest."""
    return {name: value / value.max() for name, value in scores.items()}


def over_quantile(share: float) -> Scale:
    """Over what so many of all lie below; what lies above counts as 1."""

    def scale(scores: Tensors) -> dict[str, Tensor]:
        limit = torch.cat([value.flatten() for value in scores.values()]).quantile(share)
        return {name: (value / limit).clamp_(max=1.0) for name, value in scores.items()}

    return scale


def roots(scores: Tensors) -> dict[str, Tensor]:
    """Shares of the square roots: importances as unequal as the gradients, not as their squares."""
    return shares({name: value.sqrt() for name, value in scores.items()})


class Rescaled(BasePlugin):
    """Scales Fisher and score of each task in its own way and averages over tasks, as the preset does with shares."""

    def __init__(self, scale: Scale) -> None:
        self._scale, self._tasks = scale, 0
        self._sum: dict[str, Tensor] = {}

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        """The task has ended, and what it scored lies in the state as it is."""
        rwalk = core(strategy)
        state = rwalk.state_dict()
        parts = state["parameters"]
        self._tasks += 1
        for kind in ("fisher", "score"):
            for name, value in self._scale({name: part[kind] for name, part in parts.items()}).items():
                self._sum[name] = value + self._sum[name] if name in self._sum else value
        for name, part in parts.items():
            part["importance"] = self._sum[name] / self._tasks
        rwalk.load_state_dict(state)


class WarmUp(BasePlugin):
    """The penalty grows from nothing to its strength over the first part of each task's steps."""

    def __init__(self, part: float) -> None:
        self._part, self._step, self._steps, self._strength = part, 0, 0, 0.0

    def before_training_exp(self, strategy: Any, **_: Any) -> None:
        """As many steps as the task has."""
        rwalk = core(strategy)
        batches = -(-len(strategy.experience.dataset) // strategy.train_mb_size)
        self._step, self._steps = 0, max(1, round(self._part * batches * strategy.train_epochs))
        self._strength = self._strength or rwalk.config.ewc_lambda

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        """One step further."""
        rwalk = core(strategy)
        if self._step <= self._steps:
            rwalk.config = rwalk.config.replace(ewc_lambda=self._strength * self._step / self._steps)
        self._step += 1


def core(strategy: Any) -> Any:
    """The RWalk of a strategy that has its plugin."""
    return next(plugin for plugin in strategy.plugins if isinstance(plugin, RWalkPlugin)).rwalk


RAW = {"scaling": "none", "combine": "replace"}
#: By label: settings, a plugin besides, strengths.
VARIANTS: dict[str, tuple[dict[str, Any], Callable[[], BasePlugin] | None, Sequence[float]]] = {
    "laplace": ({}, None, SHARES),
    "over the largest": ({"scaling": "max"}, None, OVER_LARGEST),
    "shares, by layer": (RAW, partial(Rescaled, shares_by_layer), SHARES),
    "over the largest, by layer": (RAW, partial(Rescaled, largest_by_layer), OVER_LARGEST),
    "over the 99 % quantile": (RAW, partial(Rescaled, over_quantile(0.99)), OVER_LARGEST),
    "over the 99.9 % quantile": (RAW, partial(Rescaled, over_quantile(0.999)), OVER_LARGEST),
    "shares of the roots": (RAW, partial(Rescaled, roots), SHARES),
    "sum over tasks": ({"combine": "sum"}, None, (40.0, 400.0, 4000.0)),
    "sum, each task's past by 0.9": ({"combine": "sum", "decay": 0.9}, None, (40.0, 400.0, 4000.0)),
    "sum, each task's past by half": ({"combine": "sum", "decay": 0.5}, None, (40.0, 400.0, 4000.0)),
    "largest over tasks": ({"combine": "max"}, None, SHARES),
    "the latest task alone": ({"combine": "replace"}, None, SHARES),
    "penalty warmed up over a tenth of a task": ({}, partial(WarmUp, 0.1), SHARES),
    "over half of it": ({}, partial(WarmUp, 0.5), SHARES),
    "output layer left free": ({"exclude": ("*classifier*",)}, None, SHARES),
}


def study(stream: str, label: str) -> dict[str, Any]:
    """A variant's strengths on a stream: accuracy and forgetting, mean and deviation over the development seeds."""
    problem = STREAMS[stream]
    settings, plugin, strengths = VARIANTS[label]
    base = {key: value for key, value in problem.items() if key != "development"}

    def figures(value: float) -> tuple[list[float], list[float]]:
        found = []
        for seed in problem["development"]:
            rwalk = {**settings, "ewc_lambda": value}
            spec = RunSpec(**base, method="rwalk-laplace", rwalk=rwalk, seed=seed, validation=0.1)
            metrics = run(spec, plugins=[] if plugin is None else [plugin()]).metrics
            found.append([float(metrics[name] or 0.0) for name in ("average_accuracy", "forgetting")])
        return [100 * a for a, _ in found], [f for _, f in found]

    def judge(values: Iterable[float]) -> list[tuple[list[float], list[float]]]:
        return [figures(value) for value in values]

    found, best = tried(strengths, judge, lambda pair: fmean(pair[0]))
    rows = [{"value": value, "A": a, "F": f} for value, (a, f) in found.items()]
    return {"label": label, "lambda": best, "tried": rows}


def markdown(found: dict[str, Any]) -> str:
    """A table of all variants, by stream."""
    streams = found["streams"]
    lines = ["| | " + " | ".join(streams) + " |", "|---|" + "---:|" * len(streams)]
    for label in VARIANTS:
        cells = [_cell({row["label"]: row for row in rows}, label) for rows in streams.values()]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rows: Mapping[str, dict[str, Any]], label: str) -> str:
    """Accuracy at the best strength, its difference to the preset's seed by seed, forgetting, and the strength."""
    if label not in rows:
        return "–"
    best, preset = (_best(rows[name]) for name in (label, "laplace"))
    said = f"{fmean(best['A']):.1f} ± {stdev(best['A']):.1f}"
    if label != "laplace":
        differences = [one - other for one, other in zip(best["A"], preset["A"], strict=True)]
        middle, half = fmean(differences), half_interval(differences)
        said += f" ({middle:+.1f} [{middle - half:.1f}, {middle + half:.1f}])"
    return f"{said}, {fmean(best['F']):.3f}; {best['value']:g}"


def _best(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in row["tried"] if each["value"] == row["lambda"])
    return found


def main() -> None:
    """Run, print, store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options = command_line(parser, markdown)
    found: dict[str, Any] = {**begun(), "streams": {}}
    for stream in STREAMS:
        rows = found["streams"][stream] = []
        for label in VARIANTS:
            rows.append(study(stream, label))
            best = _best(rows[-1])
            print(f"{stream[:15]}; {label}: λ {best['value']:g}, A {fmean(best['A']):.1f}", flush=True)
            if options.json is not None:
                write_json(found, options.json)
    print(markdown(found))


if __name__ == "__main__":
    main()
