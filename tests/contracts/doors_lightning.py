"""Lightning, under automatic and manual optimization: a fit with a new Trainer for each task."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch.utils.data import DataLoader, TensorDataset

from contracts.doors import Door
from contracts.problem import LOSS_SCALE, Outcome, Precision, Problem
from rwalk.integrations.lightning import RWalkCallback

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
ADVICE = (
    "does not have many workers",
    r"isinstance\(treespec",
    "The last model of the previous",
    "no last checkpoint available",
    "Checkpoint directory .* exists",
)


class Module(LightningModule):
    """The problem as a user of Lightning writes it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem, self.net = problem, problem.model()

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.problem.loss(self.net(x), y)

    def configure_optimizers(self):
        return self.problem.optimizer(self.net)


class ManualModule(Module):
    """The same where the user takes the steps."""

    def __init__(self, problem: Problem, accumulation: int = 1) -> None:
        super().__init__(problem)
        self.automatic_optimization, self.accumulation = False, accumulation

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        self.manual_backward(super().training_step(batch, batch_idx) / self.accumulation)
        if (batch_idx + 1) % self.accumulation == 0:
            optimizer.step()
            optimizer.zero_grad()


class Recorder(Callback):
    """Takes the snapshot before the task ends: callbacks are called in the order they are given in."""

    def __init__(self, outcome: Outcome, walk: RWalkCallback) -> None:
        self.outcome, self.walk = outcome, walk

    def on_train_end(self, trainer, pl_module):
        self.outcome.record(self.walk.rwalk, prefix="net.")


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's advice on data loading and checkpoints, and without its use of what torch deprecates."""
    with warnings.catch_warnings():
        for message in ADVICE:
            warnings.filterwarnings("ignore", f".*{message}")
        yield


def precision_options(precision: Precision) -> dict:
    """What the Trainer is given. Its own fp16 on a CPU is bf16, so the plugin is made as it makes it on a GPU."""
    if precision == "fp16":
        scaler = torch.amp.GradScaler("cpu", init_scale=LOSS_SCALE)
        return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}
    return {"precision": {"float32": "32-true", "bf16": "bf16-mixed"}[precision]}


def loader(problem: Problem, task: int, accumulation: int) -> DataLoader:
    return DataLoader(TensorDataset(*problem.samples(task)), problem.batch_size // accumulation)


def fit_each_task(module: LightningModule, problem: Problem, precision: Precision, accumulation: int, **options):
    """Keeps one optimizer for both tasks, as the plain loop does."""
    outcome, walk, optimizer = Outcome(), RWalkCallback(problem.config), problem.optimizer(module.net)
    module.configure_optimizers = lambda: optimizer
    callbacks = [Recorder(outcome, walk), walk]
    for task in range(problem.tasks):
        trainer = Trainer(max_epochs=1, callbacks=callbacks, **QUIET, **precision_options(precision), **options)
        with quiet():
            trainer.fit(module, loader(problem, task, accumulation))
        outcome.record(walk.rwalk, prefix="net.")
    return outcome


def automatic(problem: Problem, precision: Precision, accumulation: int) -> Outcome:
    return fit_each_task(Module(problem), problem, precision, accumulation, accumulate_grad_batches=accumulation)


def manual(problem: Problem, precision: Precision, accumulation: int) -> Outcome:
    return fit_each_task(ManualModule(problem, accumulation), problem, precision, accumulation)


DOORS = {"lightning automatic": Door(automatic), "lightning manual": Door(manual)}
