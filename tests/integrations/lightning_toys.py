"""Lightning modules for the tests, quiet trainers, and the plain loop they are held against."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from contracts.doors_lightning import QUIET, Module, loader, quiet
from contracts.problem import Problem
from rwalk import RWalk

PROBLEM = Problem()
PREFIX = "net."


def fit(module: LightningModule, task: int, callbacks, *, ckpt_path=None, accumulation: int = 1, **options) -> Trainer:
    """One fit of one epoch with a new Trainer."""
    trainer = Trainer(**{"max_epochs": 1, "callbacks": callbacks, **QUIET, **options})
    with quiet():
        trainer.fit(module, loader(PROBLEM, task, accumulation), ckpt_path=ckpt_path)
    return trainer


class Plain:
    """The same training without Lightning: a new optimizer for each task."""

    def __init__(self, problem: Problem = PROBLEM) -> None:
        self.problem, self.model = problem, problem.model()
        self.optimizer = problem.optimizer(self.model)
        self.rwalk = RWalk(self.model, self.optimizer, problem.config)
        self.clip: float | None = None

    def train(self, task: int) -> None:
        self.rwalk.detach()
        self.optimizer = self.problem.optimizer(self.model)
        self.rwalk.attach(self.optimizer)
        for x, y in self.problem.batches(task, 1):
            self.optimizer.zero_grad()
            self.problem.loss(self.model(x), y).backward()
            if self.clip is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()


def bare(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the name of the module's attribute in front."""
    return {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}


def bare_state(state: dict) -> dict:
    return {**state, "parameters": bare(state["parameters"])}


def assert_alike(walk, module: Module, plain: Plain) -> None:
    """Bit for bit the same weights and the same state."""
    from reference.problems import assert_same, assert_same_state, weights

    assert_same(weights(module.net), weights(plain.model))
    assert_same_state(bare_state(walk.rwalk.state_dict()), plain.rwalk.state_dict())
