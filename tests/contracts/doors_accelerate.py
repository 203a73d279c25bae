"""Accelerate: the loop of its own documentation, with RWalk attached after or before ``prepare``."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.utils.data import DataLoader, TensorDataset

from contracts.doors import Door
from contracts.problem import LOSS_SCALE, Outcome, Precision, Problem
from rwalk import RWalk
from rwalk.integrations.accelerate import prepare_rwalk

MIXED = {"float32": "no", "bf16": "bf16", "fp16": "fp16"}


def accelerator_for(precision: Precision, accumulation: int = 1) -> Accelerator:
    """Accelerate keeps its settings in singletons, which outlive an accelerator."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    accelerator = Accelerator(cpu=True, mixed_precision=MIXED[precision], gradient_accumulation_steps=accumulation)
    if precision == "fp16":  # what its constructor does on a GPU; on a CPU it would train in float32
        accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler("cpu", init_scale=LOSS_SCALE)
    return accelerator


def run(problem: Problem, precision: Precision, accumulation: int, *, walk_first: bool = False) -> Outcome:
    accelerator = accelerator_for(precision, accumulation)
    outcome, model = Outcome(), problem.model()
    optimizer = problem.optimizer(model)
    if walk_first:
        rwalk = RWalk(model, optimizer, problem.config)
    model, optimizer = accelerator.prepare(model, optimizer)
    if not walk_first:
        rwalk = prepare_rwalk(accelerator, model, optimizer, problem.config)
    for task in range(problem.tasks):
        batches = DataLoader(TensorDataset(*problem.samples(task)), problem.batch_size // accumulation)
        for x, y in accelerator.prepare_data_loader(batches):
            with accelerator.accumulate(model):
                loss = problem.loss(model(x), y)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
        outcome.record(rwalk)
        rwalk.consolidate()
        outcome.record(rwalk)
    return outcome


def before_prepare(problem: Problem, precision: Precision, accumulation: int) -> Outcome:
    return run(problem, precision, accumulation, walk_first=True)


DOORS = {"accelerate": Door(run), "accelerate, RWalk before prepare": Door(before_prepare)}
