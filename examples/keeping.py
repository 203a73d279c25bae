"""What the comparisons share: ways to keep what a network knows, strengths chosen on held-out data, the table.

`python examples/keeping.py examples/results/*.json` prints stored tables in Markdown.
"""

import argparse
import datetime
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rwalk import RWalk, RWalkConfig, __version__

Figures = tuple[float, float]  # on A and on B; more is better
Weights = dict[str, Tensor]
#: On held-out data a method may cost this much of B, next to fine-tuning; among such strengths A decides.
ALLOWED = 1.5


@dataclass(frozen=True)
class Problem:
    """A network that knows A and learns B.

    Attributes:
        name: Of the table.
        start: A seed to the network that knows A.
        samples: A seed to batches of what it knows: inputs, or pairs whose labels are for methods that need them.
        old_loss: The network and such a batch to a batch's mean loss, for methods that need one.
        head: What a frozen backbone leaves to be trained.
        learn: Trains the network on B with an optimizer, for a seed; and on A too, if told so. The last argument tells
            whether B's held-out part is left out.
        score: The network, a seed, and whether to look at the held-out parts, to figures on A and B.
        optimizer: Parameters to the optimizer.
        strengths: For each method, those to try.
        options: For ``RWalk.protect``.
        config: Of RWalk.
        tells: What the figures are, and what else a reader has to know.
        ways: Further methods: names to functions like those of ``WAYS``.
        less_is_better: Whether A's figure is a perplexity, say.
        tuning_seeds: Those that choose strengths; none of those that are shown.
        draws: How often each sample is given to ``RWalk.protect``, which draws its label anew.
    """

    name: str
    start: Callable[[int], nn.Module]
    samples: Callable[[int], list[Any]]
    old_loss: Callable[[nn.Module, Any], Tensor]
    head: Callable[[nn.Module], Iterable[nn.Parameter]]
    learn: Callable[[nn.Module, Optimizer, int, bool, bool], None]
    score: Callable[[nn.Module, int, bool], Figures]
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    strengths: Mapping[str, Sequence[float]]
    options: Mapping[str, Any] = field(default_factory=dict)
    config: RWalkConfig = field(default_factory=RWalkConfig)
    tells: str = ""
    ways: Mapping[str, Callable[..., None]] = field(default_factory=dict)
    less_is_better: bool = False
    tuning_seeds: Sequence[int] = (100, 101)
    draws: int = 1


def hold(optimizer: Optimizer, model: nn.Module, importances: Weights, strength: float) -> None:
    """Add the gradient of a quadratic penalty around the present weights before each step."""
    held = [(p, importances[n], p.detach().clone()) for n, p in model.named_parameters() if n in importances]

    def add(*_: Any) -> None:
        with torch.no_grad():
            for parameter, importance, anchor in held:
                if parameter.grad is not None:
                    parameter.grad.add_(importance * (parameter - anchor), alpha=2 * strength)

    optimizer.register_step_pre_hook(add)


def protect(problem: Problem, model: nn.Module, optimizer: Optimizer, strength: float, seed: int) -> None:
    """RWalk.protect, without labels."""
    rwalk = RWalk(model, optimizer, problem.config.replace(ewc_lambda=strength))
    batches = problem.samples(seed) * problem.draws
    rwalk.protect([batch[0] if isinstance(batch, tuple) else batch for batch in batches], **problem.options)


def elastic(problem: Problem, model: nn.Module, optimizer: Optimizer, strength: float, seed: int) -> None:
    """EWC with the Fisher that peers take: the squared gradient of a batch's mean loss, scaled as RWalk's is."""
    batches = problem.samples(seed)
    moved = {name: p for name, p in model.named_parameters() if p.requires_grad}
    fisher = {name: torch.zeros_like(p) for name, p in moved.items()}
    mode = model.training
    model.train(mode=False)
    for batch in batches:
        found = torch.autograd.grad(problem.old_loss(model, batch), list(moved.values()), allow_unused=True)
        for name, gradient in zip(moved, found, strict=True):
            if gradient is not None:
                fisher[name] += gradient.square() / len(batches)
    model.train(mode)
    largest = max(float(value.max()) for value in fisher.values())
    hold(optimizer, model, {name: value / largest for name, value in fisher.items()}, strength)


def starting_point(_: Problem, model: nn.Module, optimizer: Optimizer, strength: float, __: int) -> None:
    """L2-SP: every weight counts alike."""
    moved = {name: torch.ones(()) for name, p in model.named_parameters() if p.requires_grad}
    hold(optimizer, model, moved, strength)


def nothing(*_: Any) -> None:
    """Fine-tuning."""


WAYS: dict[str, Callable[..., None]] = {
    "fine-tuning": nothing,
    "frozen backbone": nothing,
    "L2-SP": starting_point,
    "EWC": elastic,
    "RWalk.protect": protect,
    "joint training": nothing,
}


def figures(problem: Problem, method: str, strength: float, seed: int, held_out: bool) -> Figures:
    """Let a method learn B; figures on A and B afterwards."""
    model = problem.start(seed)
    if method == "frozen backbone":
        left = {id(parameter) for parameter in problem.head(model)}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in left)
    optimizer = problem.optimizer([p for p in model.parameters() if p.requires_grad])
    {**WAYS, **problem.ways}[method](problem, model, optimizer, strength, seed)
    torch.manual_seed(seed)  # so that all methods see the same batches
    problem.learn(model, optimizer, seed, method == "joint training", held_out)
    return problem.score(model, seed, held_out)


def choose(problem: Problem, method: str, floor: float, say: Callable[[str], None]) -> float:
    """The strength with the best A among those that cost B no more than is allowed, on held-out data of other seeds."""
    tried: dict[float, Figures] = {}
    for strength in problem.strengths[method]:
        found = [figures(problem, method, strength, seed, True) for seed in problem.tuning_seeds]
        tried[strength] = statistics.fmean(a for a, _ in found), statistics.fmean(b for _, b in found)
        say(f"  {method} {strength:g}: A {tried[strength][0]:.2f}, B {tried[strength][1]:.2f} (held out)")
    fit = [strength for strength, (_, b) in tried.items() if b >= floor - ALLOWED]
    sign = -1 if problem.less_is_better else 1
    best = max(fit, key=lambda strength: sign * tried[strength][0]) if fit else min(tried)
    if len(tried) > 1 and best in (min(tried), max(tried)):
        say(f"  {method}: the strength chosen, {best:g}, is at the end of those tried")
    return best


def study(problem: Problem, seeds: Sequence[int], methods: Sequence[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Choose strengths, run all methods from all seeds, and tell.

    Returns:
        What is stored: settings, and a row a method.
    """
    began = time.perf_counter()
    starts = [problem.start(seed) for seed in seeds]
    before = [problem.score(model, seed, False)[0] for model, seed in zip(starts, seeds, strict=True)]
    floor = statistics.fmean(figures(problem, "fine-tuning", 0.0, seed, True)[1] for seed in problem.tuning_seeds)
    rows = [_row("before", None, [(a, float("nan")) for a in before])]
    for method in methods:
        strength = choose(problem, method, floor, say) if problem.strengths.get(method) else None
        rows.append(_row(method, strength, [figures(problem, method, strength or 0.0, s, False) for s in seeds]))
        say(told(rows[-1]))
    return {
        "name": problem.name,
        "tells": problem.tells,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "versions": {"rwalk": __version__, "torch": torch.__version__},
        "seeds": list(seeds),
        "tuning_seeds": list(problem.tuning_seeds),
        "allowed_on_b": ALLOWED,
        "strengths": {method: list(values) for method, values in problem.strengths.items()},
        "seconds": round(time.perf_counter() - began, 1),
        "rows": rows,
    }


def _row(method: str, strength: float | None, found: list[Figures]) -> dict[str, Any]:
    row: dict[str, Any] = {"method": method, "strength": strength}
    for name, values in zip("ab", zip(*found, strict=True), strict=True):
        row[name] = [round(value, 3) for value in values] if values[0] == values[0] else None
    return row


def told(row: Mapping[str, Any]) -> str:
    """A row in a line."""
    strength = "" if row["strength"] is None else f"λ {row['strength']:g}"
    return f"{row['method']:>18} {strength:>10}   A {spread(row['a']):>13}   B {spread(row['b']):>13}"


def spread(values: Sequence[float] | str | None) -> str:
    """Mean and sample standard deviation, if they are not written down so."""
    if values is None or isinstance(values, str):
        return values or ""
    mean = statistics.fmean(values)
    digits = 1 if mean >= 20 else 2
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{deviation}"


def markdown(report: Mapping[str, Any]) -> str:
    """A stored table."""
    lines = ["| | λ | A | B |", "|---|---|---|---|"]
    for row in report["rows"]:
        strength = "" if row["strength"] is None else f"{row['strength']:g}"
        lines.append(f"| {row['method']} | {strength} | {spread(row['a'])} | {spread(row['b'])} |")
    return f"{report['name']}; {report['tells']}; {len(report['seeds'])} seeds\n\n" + "\n".join(lines)


def command(
    description: str, problems: Callable[[bool], Iterable[Problem]], seeds: int, methods: Sequence[str]
) -> None:
    """A comparison's command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="little data and one seed: a trial, not a result")
    parser.add_argument("--methods", nargs="+", metavar="NAME", default=methods, choices=methods, help="some of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file")
    chosen = parser.parse_args()
    reports = []
    for problem in problems(chosen.quick):
        say(problem.name)
        reports.append(
            study(problem, range(1 if chosen.quick else seeds), chosen.methods, say) | {"quick": chosen.quick}
        )
        say("")
        if chosen.json:
            chosen.json.write_text(json.dumps(reports, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def say(text: str) -> None:
    """Print, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        say(f"{__doc__}\nNothing runs here; begin with: python examples/weights_only_peers.py --quick")
    for file in sys.argv[1:]:
        for stored in json.loads(Path(file).read_text(encoding="utf-8")):
            say(markdown(stored) + "\n")
