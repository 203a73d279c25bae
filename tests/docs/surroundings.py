"""What each page of the documentation takes as given: its reader's model, data and so on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from contracts.doors_lightning import QUIET, Module, loader
from contracts.problem import Problem
from rwalk import RWalkConfig

PROBLEM = Problem()


def basics(folder: Path) -> dict[str, Any]:
    """A model, its optimizer and two tasks."""
    model = PROBLEM.model()
    tasks = [list(PROBLEM.batches(task, 1)) for task in range(2)]
    return {
        "torch": torch,
        "folder": folder,
        "model": model,
        "optimizer": PROBLEM.optimizer(model),
        "loss_function": nn.functional.mse_loss,
        "config": RWalkConfig(),
        "tasks": tasks,
        "data": tasks[0],
        "stream": tasks[0] * 40,
        "loader": loader(PROBLEM, 0, 2),
        "drift_detector": SimpleNamespace(alarms=lambda x: bool(x.mean() > 0.3)),
    }


def quiet_trainer(folder: Path) -> Callable[..., Trainer]:
    """A Trainer that prints nothing and saves only what its callbacks do."""

    def trainer(callbacks: list[Any], **options: Any) -> Trainer:
        saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
        chosen = {**QUIET, "default_root_dir": folder, "enable_checkpointing": saves, **options}
        return Trainer(callbacks=callbacks, **chosen)

    return trainer


def lightning(folder: Path) -> dict[str, Any]:
    """A module that logs its loss, and loaders."""

    class Logs(Module):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss)
            return loss

    names = {"torch": torch, "folder": folder, "module": Logs(PROBLEM), "ModelCheckpoint": ModelCheckpoint}
    loaders = {f"{name}_loader": loader(PROBLEM, task, 1) for task, name in enumerate(("first", "second", "third"))}
    return {**names, **loaders}


PAGES = {"plain-pytorch": basics, "accelerate": basics, "task-free": basics, "lightning": lightning}
