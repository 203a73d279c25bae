"""The plain loop that every door is held against: it follows the naive twin, and lower precision stays near it."""

import pytest
import torch
from torch import nn

from contracts.comparison import worst
from contracts.doors_plain import loop
from contracts.problem import Outcome, Problem, Snapshot
from reference.naive import NaiveRWalk, Values
from reference.optimizers import NaiveAdam, NaiveSGD
from reference.problems import gradient_at, lists, weights

TWINS = {
    "sgd": lambda: NaiveSGD(0.05, momentum=0.9, weight_decay=1e-3),
    "adam": lambda: NaiveAdam(0.01),
}
# Relative to a tensor's norm, over 20 steps. Autocast rounds what enters and leaves each layer to 8 bits in bf16 and to
# 11 in fp16, a relative error of up to 2⁻⁹ and 2⁻¹², here a few dozen roundings deep. Which of a batch's parts are
# rounded together depends on accumulation, so that a reference in lower precision is one of its own accumulation.
ROUNDING = {"float32": 1e-5, "bf16": 20 * 2**-9, "fp16": 20 * 2**-12}


def twin_of(problem: Problem) -> Outcome:
    """The problem in plain floats, with torch's gradients in float64."""
    model = problem.model().double()
    theta, twin, optimizer = lists(weights(model)), NaiveRWalk(problem.config), TWINS[problem.optimizer_name]()
    outcome = Outcome()

    def record() -> None:
        everything: dict[str, Values] = {
            "fisher": twin.fisher,
            "score": twin.score,
            "penalty": twin.importance or {name: [0.0] * len(values) for name, values in theta.items()},
            "parameters": theta,
        }
        tensors = {
            kind: {name: torch.tensor(values[name]).double().view(p.shape) for name, p in model.named_parameters()}
            for kind, values in everything.items()
        }
        outcome.snapshots.append(Snapshot(twin.tasks, twin.steps, twin.penalty(theta), tensors))

    for task in range(problem.tasks):
        for x, y in problem.batches(task, accumulation=1):
            target = y.double()
            plain = gradient_at(model, theta, lambda out, y=target: nn.functional.mse_loss(out, y), x.double())
            moved = optimizer.step(theta, twin.penalised(plain, theta))
            twin.observe(plain, theta, moved)
            theta = moved
        record()
        twin.end_task(theta)
        record()
    return outcome


@pytest.mark.parametrize("optimizer_name", ["sgd", "adam"])
def test_in_float32_it_follows_the_naive_twin(optimizer_name):
    problem = Problem(optimizer_name)
    twin = twin_of(problem)
    assert worst(loop(problem, "float32", 1), twin) <= 1e-5
    assert [snapshot.tasks for snapshot in twin.snapshots] == [0, 1, 1, 2]
    assert twin.snapshots[2].penalty > 0  # there was something to reproduce


@pytest.mark.parametrize("optimizer_name", ["sgd", "adam"])
@pytest.mark.parametrize("accumulation", [1, 2, 4])
@pytest.mark.parametrize("precision", ROUNDING)
def test_lower_precision_stays_near_float32(precision, accumulation, optimizer_name):
    problem = Problem(optimizer_name)
    distance = worst(loop(problem, precision, accumulation), loop(problem, "float32", 1))
    assert distance <= ROUNDING[precision]
    if precision != "float32":
        assert distance > 2 * ROUNDING["float32"]  # lower precision was in use
