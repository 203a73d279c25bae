"""The one problem that every door into rwalk has to solve alike, and what is compared afterwards.

A small network, two tasks after one another, fixed data in a fixed order. A door trains it through its framework and
records where it stands after each task, before and after it is consolidated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from rwalk import RWalk, RWalkConfig
from rwalk.core.names import canonical_name

Precision = Literal["float32", "bf16", "fp16"]

CONFIG = RWalkConfig(ewc_lambda=0.5, ewc_alpha=0.3, delta_t=3)
LOSS_SCALE = 2.0**10  # of fp16's GradScaler: large enough to act, small enough that no step overflows


@dataclass(frozen=True)
class Problem:
    """What is trained.

    Attributes:
        optimizer_name: ``"sgd"`` (momentum and weight decay) or ``"adam"``.
        config: Ten steps a task and windows of three leave a window unfinished at each task's end.
    """

    optimizer_name: str = "sgd"
    config: RWalkConfig = CONFIG
    tasks: int = 2
    steps: int = 10
    batch_size: int = 8

    def model(self) -> nn.Sequential:
        """The network, in float32; parameters ``0.weight``, ``0.bias``, ``2.weight``, ``2.bias``."""
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """What trains it; a new one for each task is not the same problem."""
        if self.optimizer_name == "adam":
            return torch.optim.Adam(model.parameters(), lr=0.01)
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)

    def samples(self, task: int) -> tuple[Tensor, Tensor]:
        """All of a task's data in its order: inputs ``(steps * batch_size, 4)`` and targets ``(…, 3)``, float32."""
        random = torch.Generator().manual_seed(100 + task)
        mixing = torch.randn(4, 3, generator=random)
        x = torch.randn(self.steps * self.batch_size, 4, generator=random)
        return x, (x @ mixing).sin()

    def batches(self, task: int, accumulation: int) -> Iterator[tuple[Tensor, Tensor]]:
        """A task's data cut into ``steps * accumulation`` batches of ``batch_size / accumulation``."""
        size = self.batch_size // accumulation
        x, y = self.samples(task)
        return zip(x.split(size), y.split(size), strict=True)

    @staticmethod
    def loss(output: Tensor, y: Tensor) -> Tensor:
        """Mean over the batch, so that equal parts of a batch average to the whole."""
        return nn.functional.mse_loss(output.float(), y.float())  # torch 2.6 differentiates no mixture


@dataclass
class Snapshot:
    """Where training and RWalk stand: tensors by canonical parameter name."""

    tasks: int
    steps: int
    penalty: float
    tensors: dict[str, dict[str, Tensor]]


@dataclass
class Outcome:
    """What a door has to reproduce: two snapshots a task."""

    snapshots: list[Snapshot] = field(default_factory=list)

    def record(self, rwalk: RWalk, prefix: str = "") -> None:
        """Take a snapshot. Call it when a task's training has ended, before *and* after ``consolidate``.

        Args:
            rwalk: The core, wherever the door keeps it.
            prefix: What the framework's module puts before the names of the problem's network, such as ``"net."``.
        """
        parameters = {canonical_name(name): p.detach().clone() for name, p in rwalk.model.named_parameters()}
        tensors = {kind: rwalk.importances(kind) for kind in ("fisher", "score", "penalty")}
        tensors["parameters"] = parameters
        stripped = {
            kind: {name.removeprefix(prefix): value for name, value in values.items()}
            for kind, values in tensors.items()
        }
        self.snapshots.append(Snapshot(rwalk.tasks, rwalk.steps, rwalk.penalty().item(), stripped))
