"""Hugging Face's Trainer: one for each task, with the callback doing all the rest."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments

from contracts.doors import Door
from contracts.problem import LOSS_SCALE, Outcome, Precision, Problem
from integrations.in_order import IN_ORDER, OrderedTrainer
from rwalk.integrations.transformers import RWalkTrainerCallback


class WithLoss(nn.Module):
    """The problem's network as Trainer wants it: what comes out has a loss in it."""

    def __init__(self, net: nn.Module, loss: Any) -> None:
        super().__init__()
        self.net, self.loss = net, loss

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": self.loss(self.net(x), labels)}


class Recorder(TrainerCallback):
    """Takes a snapshot before the task ends, which is after all callbacks."""

    def __init__(self, outcome: Outcome, rwalk: RWalkTrainerCallback) -> None:
        self.outcome, self.rwalk = outcome, rwalk

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.outcome.record(self.rwalk.rwalk, prefix="net.")


def scale_losses(accelerator: Accelerator) -> None:
    """Set it up for fp16 as it sets itself up on a GPU; on a CPU it would leave fp16 out."""
    accelerator.state._mixed_precision = "fp16"
    accelerator.native_amp = True
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=LOSS_SCALE)


def arguments(folder: str, problem: Problem, precision: Precision, accumulation: int) -> TrainingArguments:
    """The problem's, from a clean slate: Accelerate's singletons remember the last precision."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    return TrainingArguments(
        folder,
        use_cpu=True,
        num_train_epochs=1,
        per_device_train_batch_size=problem.batch_size // accumulation,
        gradient_accumulation_steps=accumulation,
        max_grad_norm=0.0,
        bf16=precision == "bf16",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **IN_ORDER,
    )


def trainer(problem: Problem, precision: Precision, accumulation: int) -> Outcome:
    outcome, model = Outcome(), WithLoss(problem.model(), problem.loss)
    optimizer, rwalk = problem.optimizer(model), RWalkTrainerCallback(problem.config)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    with tempfile.TemporaryDirectory() as folder:
        for task in range(problem.tasks):
            x, y = problem.samples(task)
            framework = OrderedTrainer(
                model,
                arguments(folder, problem, precision, accumulation),
                train_dataset=[{"x": a, "labels": b} for a, b in zip(x, y, strict=True)],
                callbacks=[rwalk, Recorder(outcome, rwalk)],
                optimizers=(optimizer, constant),
            )
            if precision == "fp16":
                scale_losses(framework.accelerator)
            framework.train()
            outcome.record(rwalk.rwalk, prefix="net.")
    return outcome


DOORS = {"transformers trainer": Door(trainer, accumulations=(1, 2, 4))}
