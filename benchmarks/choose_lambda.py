"""Does one setting choose λ? ``RWalk.suggest_lambda`` beside every λ of a grid, on pairs of tasks.

Each network learns A unwatched, is protected with 300 unlabelled samples of it, and learns B. A run with a suggested λ
takes its first steps of B without a penalty, asks, and goes on. The target of ``suggest_lambda`` was chosen on seeds 10
and 11, the seeds here are others.

Run it: python -m benchmarks.choose_lambda --json benchmarks/results/choose_lambda.json
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from rwalk import RWalk, RWalkConfig
from rwalk.streams import benchmark

EXAMPLES = Path(__file__).parents[1] / "examples"
GRID = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
FIRST_STEPS = 20
SAMPLES = 300
#: A fresh Adam or the one that learned A, for the question which state to keep.
STATES = ("kept", "fresh")


@dataclass
class Problem:
    """Two tasks, a network, and how it is trained; a batch is a pair (inputs, labels)."""

    model: nn.Module
    optimizer: Callable[[Any], Optimizer]
    tasks: tuple[tuple[Any, Tensor], tuple[Any, Tensor]]
    loss: Callable[[nn.Module, Any, Tensor], Tensor]
    score: Callable[[nn.Module, int], float]
    epochs: int
    unlabelled: Callable[[Any], list[Any]] = lambda x: list(x[:SAMPLES].split(100))
    answers: Tensor = field(default_factory=lambda: torch.empty(0))

    def batches(self, task: int) -> Iterator[tuple[Any, Tensor]]:
        """All epochs' batches, in an order that torch's generator gives."""
        x, y = self.tasks[task]
        for _ in range(self.epochs):
            for index in torch.randperm(len(y)).split(32):
                yield x[index], y[index]


def classify(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy."""
    return nn.functional.cross_entropy(model(x), y)


def accuracies(tests: list[tuple[Tensor, Tensor]]) -> Callable[[nn.Module, int], float]:
    """Accuracy on a task's test data in %."""

    @torch.no_grad()
    def score(model: nn.Module, task: int) -> float:
        x, y = tests[task]
        return 100 * float((model(x).argmax(1) == y).float().mean())

    return score


def digits(seed: int) -> Problem:
    """scikit-learn's digits, then the same with their pixels in another order; Adam."""
    from two_tasks import network, two_tasks

    (a, test_a), (b, test_b) = two_tasks(seed)
    tasks = (a.tensors, b.tensors)
    return Problem(
        network(seed), lambda p: Adam(p, 2e-3), tasks, classify, accuracies([test_a, test_b, _first(tasks[1])]), 10
    )


def mnist(seed: int) -> Problem:
    """10,000 images of MNIST, then the same with their pixels in another order; Adam."""
    (x, y), (u, v) = (_images(part, count, seed) for part, count in (("train", 10000), ("test", 5000)))
    order = torch.randperm(784, generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )  # fmt: skip
    score = accuracies([(u, v), (u[:, order], v), _first((x[:, order], y))])
    return Problem(model, lambda p: Adam(p, 1e-3), ((x, y), (x[:, order], y)), classify, score, 3)


def mnist_sgd(seed: int) -> Problem:
    """The same with SGD and momentum."""
    problem = mnist(seed)
    problem.optimizer = lambda p: SGD(p, lr=0.03, momentum=0.9)
    return problem


def cnn(seed: int) -> Problem:
    """6,000 images of MNIST, then the same on their side; a convolutional network, Adam."""
    (x, y), (u, v) = (_images(part, count, seed) for part, count in (("train", 6000), ("test", 3000)))
    x, u = x.view(-1, 1, 28, 28), u.view(-1, 1, 28, 28)
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(1152, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    score = accuracies([(u, v), (u.rot90(1, (2, 3)), v), _first((x.rot90(1, (2, 3)), y))])
    return Problem(model, lambda p: Adam(p, 1e-3), ((x, y), (x.rot90(1, (2, 3)), y)), classify, score, 3)


def text(seed: int) -> Problem:
    """What is a text about, in one invented language, then in another; a small BERT, AdamW."""
    import hf_text_classification as example

    return _in_languages(seed, example, example.classifier(seed), lambda p: AdamW(p, 1e-3), (2000, 500), epochs=5)


def lora(seed: int) -> Problem:
    """The next word, in one invented language, then in another; LoRA on a small Llama, AdamW."""
    import hf_causal_lm_lora as example

    return _in_languages(seed, example, example.language_model(seed), lambda p: AdamW(p, 5e-3), (1000, 200), epochs=6)


def _in_languages(
    seed: int,
    example: Any,
    model: nn.Module,
    optimizer: Callable[[Any], Optimizer],
    counts: tuple[int, int],
    epochs: int,
) -> Problem:
    from two_languages import two_languages

    languages, numbers = two_languages(seed)
    learned, tested = (
        [example.texts(language, numbers, count, seed + shift) for language in languages]
        for count, shift in zip(counts, (0, 1000), strict=True)
    )
    return Problem(
        model, optimizer, _rows(learned), lambda model, x, y: model(input_ids=x, labels=y).loss,
        lambda model, task: example.accuracy(model, [*tested, learned[1][:SAMPLES]][task]), epochs,
        unlabelled=lambda x: [{"input_ids": part} for part in x[:SAMPLES].split(100)],
    )  # fmt: skip


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "digits": digits, "mnist": mnist, "mnist_sgd": mnist_sgd, "cnn": cnn, "text": text, "lora": lora,
}  # fmt: skip


def run(name: str, seed: int) -> list[dict[str, Any]]:
    """All λ of the grid, the suggested one, and both states of the optimizer under the best λ."""
    problem = PROBLEMS[name](seed)
    learner = problem.optimizer(trained(problem.model))
    torch.manual_seed(seed)
    train_on(problem, problem.model, learner, 0)
    before = problem.score(problem.model, 0)
    start = (copy.deepcopy(problem.model.state_dict()), copy.deepcopy(learner.state_dict()))
    problem.answers = _answers(problem, problem.model)
    runs = [{"problem": name, "seed": seed, "before": before, **_second(problem, seed, start, lam)} for lam in GRID]
    best = max(runs, key=lambda found: float(found["a"] + found["b"]))["lambda"]
    for state in STATES:
        found = _second(problem, seed, start, best, keeps=state == "kept")
        runs.append({"problem": name, "seed": seed, "before": before, "state": state, **found})
    runs.append({"problem": name, "seed": seed, "before": before, "suggested": True, **_second(problem, seed, start)})
    return runs


def _second(
    problem: Problem, seed: int, start: tuple[Any, Any], lam: float | None = None, *, keeps: bool = False
) -> dict[str, float]:
    """Learn B from what A has left; λ None is the suggested one."""
    model = problem.model
    model.load_state_dict(start[0])
    optimizer = problem.optimizer(trained(model))
    if keeps:
        optimizer.load_state_dict(copy.deepcopy(start[1]))
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=lam or 0.0))
    rwalk.protect(problem.unlabelled(problem.tasks[0][0]), likelihood="categorical")
    torch.manual_seed(seed + 77)

    def ask(step: int) -> None:
        if lam is None and step == FIRST_STEPS:
            rwalk.config = rwalk.config.replace(ewc_lambda=rwalk.suggest_lambda())

    train_on(problem, model, optimizer, 1, ask)
    rwalk.detach()
    agrees = 100 * float((_answers(problem, model) == problem.answers).float().mean())
    return {
        "lambda": rwalk.config.ewc_lambda,
        "a": problem.score(model, 0),
        "b": problem.score(model, 1),
        "agrees": agrees,
        "b_learned": problem.score(model, 2),
    }


def train_on(
    problem: Problem, model: nn.Module, optimizer: Optimizer, task: int, ask: Callable[[int], None] = lambda _: None
) -> None:
    """Learn one of the tasks; ``ask`` is given the number of each step."""
    model.train()
    for step, (x, y) in enumerate(problem.batches(task), start=1):
        optimizer.zero_grad()
        problem.loss(model, x, y).backward()
        optimizer.step()
        ask(step)
    model.train(mode=False)


def _first(data: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    return data[0][:SAMPLES], data[1][:SAMPLES]


@torch.no_grad()
def _answers(problem: Problem, model: nn.Module) -> Tensor:
    """What the network says of the unlabelled samples of A."""
    found = []
    for batch in problem.unlabelled(problem.tasks[0][0]):
        scores = model(**batch).logits if isinstance(batch, dict) else model(batch)
        found.append(scores.argmax(-1).flatten())
    return torch.cat(found)


def trained(model: nn.Module) -> list[nn.Parameter]:
    """What is not frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _images(part: str, count: int, seed: int) -> tuple[Tensor, Tensor]:
    data = benchmark("split-mnist", n_experiences=1)
    stream = data.train_stream if part == "train" else data.test_stream
    x, y, _ = stream[0].dataset.batch(slice(None))
    index = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))[:count]
    return x[index].flatten(1), y[index]


def _rows(tasks: list[list[dict[str, Any]]]) -> Any:
    """Tensors of all rows, by task; labels may be rows too."""
    return tuple(
        (torch.stack([row["input_ids"] for row in rows]), torch.stack([torch.as_tensor(row["labels"]) for row in rows]))
        for rows in tasks
    )


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For each problem the best λ over its seeds, what it gives, and what the suggested ones give instead."""
    found = {}
    for name in dict.fromkeys(run["problem"] for run in runs):
        mine = [run for run in runs if run["problem"] == name]
        plain = [run for run in mine if not run.get("suggested") and "state" not in run]
        of_lambda = {lam: _mean([run for run in plain if run["lambda"] == lam]) for lam in GRID}
        tuned = max(of_lambda, key=lambda lam: of_lambda[lam]["mean"])
        suggested = [run for run in mine if run.get("suggested")]
        states = {state: _mean([run for run in mine if run.get("state") == state]) for state in STATES}
        found[name] = {
            "before": sum(run["before"] for run in plain) / len(plain),
            "fine-tuning": of_lambda[0.0],
            "tuned": {"lambda": tuned, **of_lambda[tuned]},
            "suggested": {"lambda": sorted(run["lambda"] for run in suggested), **_mean(suggested)},
            "by_agreement": _by_agreement(plain),
            "states": states,
        }
    return found


def _by_agreement(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """For each seed the λ with the most of: old samples answered as before, and new samples that were learned."""
    best = [
        max((run for run in runs if run["seed"] == seed), key=lambda run: run["agrees"] + run["b_learned"])
        for seed in dict.fromkeys(run["seed"] for run in runs)
    ]
    return {"lambda": sorted(run["lambda"] for run in best), **_mean(best)}


def _mean(runs: list[dict[str, Any]]) -> dict[str, float]:
    a, b = (sum(run[task] for run in runs) / len(runs) for task in ("a", "b"))
    return {"a": a, "b": b, "mean": (a + b) / 2}


def main() -> None:
    """Run, store, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", default=",".join(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(EXAMPLES))
    torch.set_num_threads(1)
    random.seed(0)
    runs: list[dict[str, Any]] = []
    for name in options.problems.split(","):
        for seed in range(options.seeds):
            runs += run(name, seed)
            print(f"{name}, seed {seed}: done", flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps({"runs": runs, "summary": summary(runs)}, indent=1) + "\n")
    for name, found in summary(runs).items():
        tuned, suggested = found["tuned"], found["suggested"]
        print(
            f"{name:>10}: A before {found['before']:.1f}; fine-tuning {found['fine-tuning']['mean']:.1f}; "
            f"tuned λ {tuned['lambda']:g} {tuned['mean']:.1f} (A {tuned['a']:.1f}, B {tuned['b']:.1f}); suggested λ "
            + "/".join(f"{lam:.3g}" for lam in suggested["lambda"])
            + f" {suggested['mean']:.1f} (A {suggested['a']:.1f}, B {suggested['b']:.1f}); by agreement "
            + "/".join(f"{lam:g}" for lam in found["by_agreement"]["lambda"])
            + f" {found['by_agreement']['mean']:.1f}"
        )


if __name__ == "__main__":
    main()
