"""What each page of the documentation takes as given: its reader's model, data and so on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from contracts.doors_lightning import QUIET, Module, loader
from contracts.problem import Problem
from rwalk import RWalk, RWalkConfig, RWalkPlugin
from rwalk.training import Naive

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


def images(folder: Path) -> dict[str, Any]:
    """A classifier of small images, some hundred samples, and a loop around it."""
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 16, generator=rng)

    def samples(count: int) -> tuple[Tensor, Tensor]:
        y = torch.arange(count) % 4
        return centres[y] + torch.randn(count, 16, generator=rng), y

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: Any) -> None:
        for x, y in data:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4))
    tasks = [[samples(32) for _ in range(30)] for _ in range(3)]
    return {
        "torch": torch,
        "folder": folder,
        "model": model,
        "optimizer": torch.optim.Adam(model.parameters()),
        "train": train,
        "loss_function": nn.functional.cross_entropy,
        "tasks": tasks[:2],
        "datasets_as_they_arrive": tasks,
        "new_data": tasks[1],
        "batches": [samples(100)[0] for _ in range(3)],
        "old_batches": [samples(100)[0] for _ in range(3)],
        "held_out_new_batches": [samples(100)],
    }


def bench(folder: Path) -> dict[str, Any]:
    """The same with a network for the benchmark of the README, which has 64 pixels and ten classes."""
    given = images(folder)
    tasks = [[(x.repeat(1, 4), y) for x, y in task] for task in given["datasets_as_they_arrive"]]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters())
    batches = [batch.repeat(1, 4) for batch in given["batches"]]
    return given | {"model": model, "optimizer": optimizer, "datasets_as_they_arrive": tasks, "batches": batches}


def saved(folder: Path) -> dict[str, Any]:
    """After one task."""
    given = images(folder)
    rwalk = RWalk(given["model"], given["optimizer"])
    given["train"](given["model"], given["optimizer"], given["tasks"][0])
    rwalk.consolidate()
    return given | {"rwalk": rwalk, "RWalk": RWalk}


def avalanche(folder: Path) -> dict[str, Any]:
    """Our strategy, which has the names of Avalanche's."""
    return images(folder) | {"Naive": Naive, "RWalkConfig": RWalkConfig, "RWalkPlugin": RWalkPlugin}


def mammoth(folder: Path) -> dict[str, Any]:
    """What a model of Mammoth's is given, by Mammoth's names."""

    class ContinualModel(nn.Module):
        def __init__(self, backbone, optimizer, loss):
            super().__init__()
            self.net, self.opt, self.loss, self.current_task = backbone, optimizer, loss, 0

        def meta_begin_task(self, dataset):
            self.begin_task(dataset)

        def meta_end_task(self, dataset):
            self.end_task(dataset)
            self.current_task += 1

    return images(folder) | {"ContinualModel": ContinualModel}


def nothing(folder: Path) -> dict[str, Any]:
    """Pages that bring all they need, but a folder."""
    return {"folder": folder}


PAGES = {
    "README.md": bench,
    "docs/checkpoints.md": nothing,
    "docs/choosing.md": images,
    "docs/coming-from-avalanche.md": avalanche,
    "docs/coming-from-capymoa.md": images,
    "docs/coming-from-mammoth.md": mammoth,
    "docs/integrations/accelerate.md": basics,
    "docs/integrations/lightning.md": lightning,
    "docs/integrations/plain-pytorch.md": basics,
    "docs/integrations/task-free.md": basics,
    "docs/pictures.md": nothing,
    "docs/protect.md": images,
    "docs/quick-start.md": nothing,
    "docs/state-file.md": saved,
}

#: Blocks, counted from 0, that begin anew: another day, or another loop.
FRESH = {
    "README.md": (1, 3),
    "docs/choosing.md": (2,),
    "docs/integrations/plain-pytorch.md": range(9),
}
