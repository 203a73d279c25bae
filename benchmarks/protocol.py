"""One protocol of split MNIST with exemplars, and the two frameworks that follow it."""

from __future__ import annotations

import random
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Adam, Optimizer

from benchmarks.models import mlp
from benchmarks.peers import avalanche_naive
from rwalk import RWalk, RWalkConfig
from rwalk.streams import Benchmark
from rwalk.training import BasePlugin, Naive, ReplayPlugin, RWalkPlugin

__all__ = ["PER_CLASS", "Batches", "Protocol", "Run", "accuracy", "attached", "bare", "ours", "theirs"]

PER_CLASS = 10
EVAL_BATCH = 256


@dataclass(frozen=True)
class Protocol:
    """What both follow.

    Attributes:
        data: The streams.
        epochs: Passes over each experience.
        batch_size: New samples in a batch.
        replayed: Remembered samples in a batch. Avalanche puts no exemplar twice into a batch, so that a number which
            divides every memory (20 after the first experience, 100 at the end) is what both really take.
        lr: Learning rate of Adam.
        ewc_lambda: Strength of the penalty.
    """

    data: Benchmark
    epochs: int = 1
    batch_size: int = 64
    replayed: int = 20
    lr: float = 1e-3
    ewc_lambda: float = 3.0

    def model(self, seed: int) -> nn.Module:
        """The same weights for both."""
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        inputs = int(np.prod(self.data.input_shape))
        return nn.Sequential(nn.Flatten(), mlp(inputs, 256, 256, self.data.n_classes))

    def optimizer(self, model: nn.Module) -> Optimizer:
        """In torch's fused form, the fastest there is on a processor."""
        return Adam(model.parameters(), lr=self.lr, fused=True)


Run = tuple[float, float, nn.Module]

#: What was trained on, by experience: inputs, targets and task labels of each batch.
Batches = list[list[list[torch.Tensor]]]


def ours(protocol: Protocol, seed: int, config: RWalkConfig | None = None, record: Batches | None = None) -> Run:
    """Seconds of training and altogether, and the model, with the template, the plugin and the replay of rwalk.

    Args:
        protocol: What to follow.
        seed: Of weights and batches.
        config: Settings of RWalk; the defaults if None.
        record: Where to put the batches that were trained on.
    """
    model = protocol.model(seed)
    config = (config or RWalkConfig()).replace(ewc_lambda=protocol.ewc_lambda)
    recorders = [] if record is None else [_Recorder(record)]
    strategy = Naive(
        model=model,
        optimizer=protocol.optimizer(model),
        train_mb_size=protocol.batch_size,
        train_epochs=protocol.epochs,
        eval_mb_size=EVAL_BATCH,
        plugins=[
            RWalkPlugin.from_config(config),
            ReplayPlugin(per_class=PER_CLASS, batch_size_mem=protocol.replayed),
            *recorders,
        ],
    )
    return _go_through(strategy, protocol.data.train_stream, protocol.data.test_stream)


def theirs(protocol: Protocol, seed: int, batches: Batches | None = None) -> Run:
    """The same with Avalanche's strategy, plugin and replay, over the same tensors.

    Args:
        protocol: What to follow.
        seed: Of weights and, if it draws them, batches.
        batches: Trains on these in place of its own and of what its replay would add.
    """
    from avalanche.benchmarks import tensors_benchmark
    from avalanche.evaluation.metrics import accuracy_metrics
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.plugins import ReplayPlugin as TheirReplay
    from avalanche.training.plugins import RWalkPlugin as TheirRWalk
    from avalanche.training.storage_policy import ClassBalancedBuffer

    budget = PER_CLASS * protocol.data.n_classes
    memory = ClassBalancedBuffer(budget, adaptive_size=False, total_num_classes=protocol.data.n_classes)
    streams = [
        [(experience.dataset.x, experience.dataset.targets) for experience in stream]
        for stream in (protocol.data.train_stream, protocol.data.test_stream)
    ]
    data = tensors_benchmark(train_tensors=streams[0], test_tensors=streams[1], task_labels=[0] * len(streams[0]))
    model = protocol.model(seed)
    strategy = avalanche_naive(
        model,
        protocol.optimizer(model),
        train_mb_size=protocol.batch_size,
        train_epochs=protocol.epochs,
        eval_mb_size=EVAL_BATCH,
        evaluator=EvaluationPlugin(accuracy_metrics(experience=True, stream=True)),
        plugins=[
            TheirRWalk(ewc_lambda=protocol.ewc_lambda),
            TheirReplay(mem_size=budget, batch_size_mem=protocol.replayed, storage_policy=memory)
            if batches is None
            else _feeding(batches),
        ],
    )
    # recorded, not ignored: Avalanche deprecates what its own replay calls, and turns filters off to say so
    with warnings.catch_warnings(record=True):
        return _go_through(strategy, data.train_stream, data.test_stream)


def _go_through(strategy: Any, train_stream: Any, test_stream: Any) -> Run:
    training, began = 0.0, time.perf_counter()
    for experience in train_stream:
        start = time.perf_counter()
        strategy.train(experience)
        training += time.perf_counter() - start
        strategy.eval(test_stream)
    return training, time.perf_counter() - began, strategy.model


class _Recorder(BasePlugin):
    """Keeps the batches of each experience."""

    def __init__(self, record: Batches) -> None:
        self.record = record

    def before_training_exp(self, *_: Any, **__: Any) -> None:
        self.record.append([])

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        self.record[-1].append([strategy.mb_x.clone(), strategy.mb_y.clone(), torch.zeros_like(strategy.mb_y)])


def _feeding(batches: Batches) -> Any:
    """A plugin for Avalanche that replaces what an experience is trained on."""
    from avalanche.training.plugins import SupervisedPlugin

    class Feeding(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, **_: Any) -> None:
            strategy.dataloader = batches[strategy.experience.current_experience]

    return Feeding()


class _PlainLoop:
    """What everybody writes, with the same remembered samples always; RWalk is attached to it if there is a config."""

    def __init__(self, protocol: Protocol, seed: int, config: RWalkConfig | None = None) -> None:
        self.protocol, self.model = protocol, protocol.model(seed)
        self.optimizer, self.criterion = protocol.optimizer(self.model), nn.CrossEntropyLoss()
        self.rwalk = None if config is None else RWalk(self.model, self.optimizer, config)
        self.remembered = slice(0, 0)

    def train(self, experience: Any) -> None:
        self.model.train()
        x, y = experience.dataset.x, experience.dataset.targets
        for chosen in torch.randperm(len(x)).split(self.protocol.batch_size):
            inputs, targets = torch.cat([x[chosen], x[self.remembered]]), torch.cat([y[chosen], y[self.remembered]])
            self.optimizer.zero_grad()
            self.criterion(self.model(inputs), targets).backward()
            self.optimizer.step()
        if self.rwalk is not None:
            self.rwalk.consolidate()
        self.remembered = slice(0, self.protocol.replayed)

    @torch.no_grad()
    def eval(self, stream: Any) -> None:
        self.model.eval()
        for experience in stream:
            for inputs in experience.dataset.x.split(EVAL_BATCH):
                self.model(inputs).argmax(dim=1)


def bare(protocol: Protocol, seed: int) -> Run:
    """A plain loop over the same numbers of samples: the least that any framework needs. It learns less."""
    return _go_through(_PlainLoop(protocol, seed), protocol.data.train_stream, protocol.data.test_stream)


def attached(protocol: Protocol, seed: int) -> Run:
    """The same plain loop with RWalk attached in one line, and ``consolidate`` after each experience."""
    loop = _PlainLoop(protocol, seed, RWalkConfig(ewc_lambda=protocol.ewc_lambda))
    return _go_through(loop, protocol.data.train_stream, protocol.data.test_stream)


@torch.no_grad()
def accuracy(model: nn.Module, data: Benchmark) -> float:
    """Average accuracy over all experiences after the last one, as a fraction."""
    model.eval()
    right = [(model(e.dataset.x).argmax(dim=1) == e.dataset.targets).float().mean() for e in data.test_stream]
    return float(torch.stack(right).mean())
