"""A pair of tasks, one after the other, under RWalk: what is left of the first, what was learned of the second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.choose_lambda import PROBLEMS, Problem, train_on, trained
from rwalk import RWalk, RWalkConfig, choose_lambda
from rwalk.core.likelihood import Kind

Figures = tuple[float, float]


def learn(name: str, seed: int, config: RWalkConfig, *, held_out: bool, likelihood: Kind | None = None) -> Figures:
    """Learn A, then B; what is left of A and what was learned of B, in %.

    Args:
        name: Of the pair.
        seed: Of data, weights and batches.
        config: Of RWalk.
        held_out: Judge by a fifth of the training data, which is not learned, instead of test data.
        likelihood: What A's outputs are taken for; then A is learned unwatched, and protected at its end. None: what
            they are, and A is watched.
    """
    problem = PROBLEMS[name](seed)
    if held_out:
        problem, rest = parted(problem)
    optimizer, rwalk = _watching_a(problem, seed, config, likelihood)
    optimizer.state.clear()
    train_on(problem, problem.model, optimizer, 1)
    rwalk.detach()
    if held_out:
        return right(problem.model, *rest[0]), right(problem.model, *rest[1])
    return problem.score(problem.model, 0), problem.score(problem.model, 1)


def learn_by_trial(name: str, seed: int, config: RWalkConfig) -> tuple[Figures, float]:
    """The same on test data, with λ chosen when B comes: by what 300 samples of A say, and a fifth of B's.

    Returns:
        What is left of A and what was learned of B, in %, and the λ chosen.
    """
    problem = PROBLEMS[name](seed)
    optimizer, rwalk = _watching_a(problem, seed, config)
    optimizer.state.clear()
    shorter, (_, (x, y)) = parted(problem)
    choice = choose_lambda(
        problem.model,
        lambda model: problem.optimizer(trained(model)),
        lambda model, fresh: train_on(shorter, model, fresh, 1),
        problem.unlabelled(problem.tasks[0][0]),
        [(_inputs(x), y)] if x.is_floating_point() else [{**_inputs(x), "labels": y}],
        state=rwalk.state_dict(),
    )
    rwalk.config = config.replace(ewc_lambda=choice.ewc_lambda)
    train_on(problem, problem.model, optimizer, 1)
    rwalk.detach()
    return (problem.score(problem.model, 0), problem.score(problem.model, 1)), choice.ewc_lambda


def parted(problem: Problem) -> tuple[Problem, tuple[tuple[Any, Tensor], ...]]:
    """The first four fifths of both tasks' training data to learn, and the rest."""
    cut = len(problem.tasks[0][1]) * 4 // 5
    rest = tuple((x[cut:], y[cut:]) for x, y in problem.tasks)
    (a, b), (c, d) = ((x[:cut], y[:cut]) for x, y in problem.tasks)
    return replace(problem, tasks=((a, b), (c, d))), rest


def _watching_a(
    problem: Problem, seed: int, config: RWalkConfig, likelihood: Kind | None = None
) -> tuple[Optimizer, RWalk]:
    """Learn A; the optimizer, and an RWalk that holds A."""
    optimizer = problem.optimizer(trained(problem.model))
    rwalk = RWalk(problem.model, optimizer, config) if likelihood is None else None
    torch.manual_seed(seed)
    train_on(problem, problem.model, optimizer, 0)
    if rwalk is None:
        rwalk = RWalk(problem.model, optimizer, config)
        rwalk.protect([_inputs(x) for x, _ in _in_batches(problem, 0)], likelihood=likelihood)
    elif config.fisher_source == "step":
        rwalk.consolidate()
    else:
        rwalk.consolidate(_in_batches(problem, 0), lambda batch: scores(problem.model, batch[0]))
    return optimizer, rwalk


def scores(model: nn.Module, x: Tensor) -> Tensor:
    """Scores of classes, or of words after each place, shape (B, …, classes)."""
    found: Tensor = model(x) if x.is_floating_point() else model(**_inputs(x)).logits
    return found


def _inputs(x: Tensor) -> Any:
    """A batch as the network is called with: images, or tokens by name."""
    return x if x.is_floating_point() else {"input_ids": x}


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
