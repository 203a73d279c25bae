"""The peers: whether they are here, and Avalanche driven step by step through its own loop."""

from __future__ import annotations

import runpy
import sys
import warnings
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from benchmarks.cases import Batch
from benchmarks.timing import Run

__all__ = ["FIRST_TASK", "avalanche_loop", "avalanche_naive", "why_not"]

SCHEMAS = Path(__file__).parents[1] / "tests" / "peers" / "torchvision_schemas.py"
MODULES = {"avalanche": "avalanche.training.supervised", "capymoa": "capymoa.ocl.strategy"}
FIRST_TASK = 3  # iterations

_kept: dict[str, Any] = {}


def why_not(peer: str) -> str | None:
    """Why a peer cannot be measured here, or None if it can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if not _kept and "torchvision" not in sys.modules:
                _kept.update(runpy.run_path(str(SCHEMAS)))
            __import__(MODULES[peer])
        except Exception as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            return f"{peer} is not measured: {type(error).__name__}: {reason}"
    return None


def avalanche_naive(model: nn.Module, optimizer: Optimizer, **options: Any) -> Any:
    """Avalanche's ``Naive`` without metrics and loggers, which cost time and are not asked for here."""
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.supervised import Naive

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        silent = EvaluationPlugin()
    options = {"evaluator": silent, **options}
    return Naive(model=model, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), **options)


def avalanche_loop(model: nn.Module, optimizer: Optimizer, batches: Sequence[Batch], *, regularised: bool) -> Run:
    """Iterations of Avalanche's loop over prepared batches, after a first task.

    Args:
        model: What is trained.
        optimizer: What trains it.
        batches: The first one is the first task.
        regularised: Whether its ``RWalkPlugin`` takes part.
    """
    from avalanche.benchmarks import tensors_benchmark
    from avalanche.training.plugins import RWalkPlugin

    plugins = [RWalkPlugin(delta_t=1)] if regularised else []  # a first task shorter than a window gives it 0/0
    strategy = avalanche_naive(
        model, optimizer, train_mb_size=len(batches[0][0]), train_epochs=FIRST_TASK, plugins=plugins
    )
    streams = {"train_tensors": batches[:1], "test_tensors": batches[:1], "task_labels": [0]}
    strategy.train(tensors_benchmark(**streams).train_stream[0])
    for plugin in plugins:
        plugin.delta_t = 10
    stream = cycle([[x, y, torch.zeros_like(y)] for x, y in batches])

    def run(steps: int) -> None:
        strategy.is_training = True
        strategy.dataloader = list(islice(stream, steps))
        strategy.training_epoch()

    return run
