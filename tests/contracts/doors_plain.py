"""A plain PyTorch loop: the core's reference trajectory, and the same by other means."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from contracts.doors import Door
from contracts.problem import LOSS_SCALE, Outcome, Precision, Problem
from rwalk import RWalk

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision) -> AbstractContextManager:
    return nullcontext() if precision == "float32" else torch.autocast("cpu", AUTOCAST[precision])


def loop(problem: Problem, precision: Precision, accumulation: int, *, closure: bool = False) -> Outcome:
    """Two lines of RWalk in an ordinary loop."""
    outcome, model = Outcome(), problem.model()
    optimizer = problem.optimizer(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=LOSS_SCALE, enabled=precision == "fp16")
    rwalk = RWalk(model, optimizer, problem.config)
    for task in range(problem.tasks):
        for index, (x, y) in enumerate(problem.batches(task, accumulation)):

            def backward(x=x, y=y):
                with autocast(precision):
                    loss = problem.loss(model(x), y)
                scaler.scale(loss / accumulation).backward()

            if index % accumulation == 0:
                optimizer.zero_grad()
            completes = (index + 1) % accumulation == 0
            if closure and completes:
                optimizer.step(backward)
                continue
            backward()
            if completes:
                scaler.step(optimizer)
                scaler.update()
        outcome.record(rwalk)
        rwalk.consolidate()
        outcome.record(rwalk)
    return outcome


def with_closure(problem: Problem, precision: Precision, accumulation: int) -> Outcome:
    """Backward runs inside the optimizer's step. torch's GradScaler takes no closures."""
    return loop(problem, precision, accumulation, closure=True)


def by_hand(problem: Problem, precision: Precision, accumulation: int) -> Outcome:
    """Not attached: the loop says itself when gradients are complete and when the optimizer has stepped."""
    outcome, model = Outcome(), problem.model()
    optimizer = problem.optimizer(model)
    rwalk = RWalk(model, optimizer, problem.config, attach=False)
    for task in range(problem.tasks):
        for index, (x, y) in enumerate(problem.batches(task, accumulation)):
            with autocast(precision):
                loss = problem.loss(model(x), y)
            (loss / accumulation).backward()
            if (index + 1) % accumulation == 0:
                rwalk.before_step()
                optimizer.step()
                rwalk.after_step()
                optimizer.zero_grad()
        outcome.record(rwalk)
        rwalk.consolidate()
        outcome.record(rwalk)
    return outcome


DOORS = {
    "plain": Door(loop),
    "plain with closure": Door(with_closure, precisions=("float32", "bf16")),
    "plain by hand": Door(by_hand, precisions=("float32", "bf16")),
}
