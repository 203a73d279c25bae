"""What a training step is measured on: networks, batches and optimizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from benchmarks.models import mlp, transformer, wide
from rwalk.models import resnet18, slim_resnet18

__all__ = ["CASES", "OPTIMIZERS", "Batch", "Case"]

Batch = tuple[Tensor, Tensor]

#: Learning rates so small that hundreds of steps leave the loss, and with it the size of all numbers, where it is.
OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "sgd": lambda model: SGD(model.parameters(), lr=1e-3, momentum=0.9),
    "adam": lambda model: Adam(model.parameters(), lr=1e-5),
}


@dataclass(frozen=True)
class Case:
    """A network with its batches.

    Attributes:
        name: What its figures are called.
        build: Makes the network.
        shape: Of one input.
        batch_size: Samples in a batch.
        classes: Outputs of the network.
        tokens: Inputs are tokens, not numbers.
        steps: Timed steps in a round; a multiple of 10, the length of a window.
        singly: Variants take turns after every step: for slow steps, which the machine's drift would else hide.
        optimizers: Those to measure with.
        seconds: For all rounds with one optimizer.
        at_least: Rounds to measure even if that takes longer. Below 3 no round is spent on warming up.
        large: Too large for what the peers keep, and for several regularisers at once.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (784,)
    batch_size: int = 64
    classes: int = 10
    tokens: bool = False
    steps: int = 10
    singly: bool = False
    optimizers: Sequence[str] = ("sgd",)
    seconds: float = 15.0
    at_least: int = 3
    large: bool = False

    def batches(self, count: int = 4) -> list[Batch]:
        """Random inputs with random labels, which a network cannot learn."""
        shape = (self.batch_size, *self.shape)
        inputs = (torch.randint(0, 512, shape) if self.tokens else torch.randn(shape) for _ in range(count))
        return [(x, torch.randint(0, self.classes, (self.batch_size,))) for x in inputs]


IMAGE = (3, 32, 32)
SQUARE = {"shape": (2048,), "classes": 2048, "batch_size": 8}

BOTH = ("sgd", "adam")

CASES = (
    Case("mlp_100k", lambda: mlp(784, 128, 10), steps=40, seconds=6.0, optimizers=BOTH),
    Case("mlp_270k", lambda: mlp(784, 256, 256, 10), steps=40, optimizers=BOTH),
    Case("mlp_6m", lambda: mlp(784, 2048, 2048, 10), optimizers=BOTH),
    Case("mlp_6m_batch8", lambda: mlp(784, 2048, 2048, 10), batch_size=8),
    Case("resnet_1m", lambda: slim_resnet18(IMAGE, 10), shape=IMAGE, singly=True, optimizers=BOTH, at_least=2),
    Case("resnet_11m", lambda: resnet18(IMAGE, 10), shape=IMAGE, batch_size=16, singly=True, at_least=2),
    Case("transformer_11m", transformer, shape=(16,), batch_size=16, tokens=True, singly=True, at_least=2),
    Case("wide_17m", lambda: wide(17_000_000), **SQUARE, seconds=30.0),
    Case("wide_50m", lambda: wide(50_000_000), **SQUARE, seconds=30.0, at_least=2),
    Case("wide_300m", lambda: wide(300_000_000), **SQUARE, seconds=30.0, at_least=1, large=True),
)
