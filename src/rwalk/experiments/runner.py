"""Carries a spec out."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.utils.data import ConcatDataset

from rwalk.experiments.methods import METHODS
from rwalk.experiments.models import mlp
from rwalk.experiments.spec import RunSpec
from rwalk.metrics import AccuracyMatrix
from rwalk.streams import Benchmark, Stream, TensorData, benchmark
from rwalk.training import BasePlugin, EvaluationPlugin, Naive, ReplayPlugin

__all__ = ["SCHEMA_VERSION", "RunResult", "run"]

SCHEMA_VERSION = 1
IMPORT_NAMES = {"scikit-learn": "sklearn"}

OPTIMIZERS: dict[str, Callable[[Any, float], Optimizer]] = {
    "adam": lambda parameters, lr: Adam(parameters, lr=lr),
    "adamw": lambda parameters, lr: AdamW(parameters, lr=lr),
    "sgd": lambda parameters, lr: SGD(parameters, lr=lr),
    "momentum": lambda parameters, lr: SGD(parameters, lr=lr, momentum=0.9),
}


@dataclass(frozen=True)
class RunResult:
    """What came out of a run.

    Attributes:
        spec: What was run.
        matrix: Accuracy on the test stream after each experience.
        seconds: Wall time of training and evaluation, without loading data.
        reference: Joint accuracies that intransigence was computed against, or None.
    """

    spec: RunSpec
    matrix: AccuracyMatrix
    seconds: float
    reference: tuple[float, ...] | None = None

    @property
    def metrics(self) -> dict[str, float | None]:
        """All metrics, fractions."""
        return self.matrix.summary(self.reference)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``result.json``; accuracies and metrics are fractions."""
        return {
            "schema_version": SCHEMA_VERSION,
            "config": {**self.spec.model_dump(mode="json"), "rwalk": self.spec.rwalk_config.to_dict()},
            "versions": _versions(),
            "seconds": round(self.seconds, 3),
            "accuracy_matrix": self.matrix.tolist(),
            "reference": None if self.reference is None else list(self.reference),
            **self.metrics,
        }


def run(spec: RunSpec, *, plugins: Sequence[BasePlugin] = (), reference: Sequence[float] | None = None) -> RunResult:
    """Train on the spec's stream and evaluate on the whole test stream after each experience.

    Args:
        spec: What to run.
        plugins: Further plugins, such as a progress display.
        reference: Accuracy on each experience k of a model trained jointly on 1..k (a ``joint`` run's diagonal).

    Raises:
        ValueError: The reference does not cover the stream, or the device is not one of this machine.
        DataUnavailableError: The benchmark's data is not to be had.
    """
    try:
        torch.zeros(1, device=spec.device).item()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={spec.device!r} cannot be used: {str(error).splitlines()[0]}") from error
    data = benchmark(spec.benchmark, n_experiences=spec.n_experiences, seed=spec.seed if spec.shuffle_classes else None)
    if reference is not None and len(reference) != len(data.train_stream):
        raise ValueError(f"the reference has {len(reference)} accuracies for {len(data.train_stream)} experiences")
    threads = torch.get_num_threads()
    torch.set_num_threads(spec.threads)
    began = time.perf_counter()
    try:
        matrix = _learn(spec, data, plugins)
    finally:
        torch.set_num_threads(threads)
    return RunResult(spec, matrix, time.perf_counter() - began, None if reference is None else tuple(reference))


def _learn(spec: RunSpec, data: Benchmark, plugins: Sequence[BasePlugin]) -> AccuracyMatrix:
    """Go through the stream; the accuracy matrix on the test stream."""
    torch.manual_seed(spec.seed)
    evaluator = EvaluationPlugin()
    method = METHODS[spec.method]
    own: list[BasePlugin] = method.plugins(spec.rwalk_config)
    if spec.exemplars:
        own.append(ReplayPlugin(per_class=spec.exemplars, batch_size_mem=spec.replay_batch_size))
    strategy = _strategy(spec, data, [*own, *plugins], evaluator)
    strategy.eval(data.test_stream)
    for experience in _joined(data.train_stream) if method.joint else data.train_stream:
        if method.joint:
            fresh = mlp(data.input_shape, data.n_classes, spec.hidden).to(spec.device)
            strategy.model, strategy.optimizer = fresh, OPTIMIZERS[spec.optimizer](fresh.parameters(), spec.lr)
        strategy.train(experience)
        strategy.eval(data.test_stream)
    return evaluator.matrices["test"]


def _strategy(spec: RunSpec, data: Benchmark, plugins: list[BasePlugin], evaluator: EvaluationPlugin) -> Naive:
    model: nn.Module = mlp(data.input_shape, data.n_classes, spec.hidden).to(spec.device)
    return Naive(
        model=model,
        optimizer=OPTIMIZERS[spec.optimizer](model.parameters(), spec.lr),
        train_mb_size=spec.batch_size,
        train_epochs=spec.epochs,
        eval_mb_size=1024,
        device=spec.device,
        plugins=plugins,
        evaluator=evaluator,
    )


def _joined(stream: Stream) -> Stream:
    """Experience k of the result holds all samples of experiences 1..k."""
    parts = [experience.dataset for experience in stream]
    joined: list[Any] = []
    for count in range(1, len(parts) + 1):
        same_view = [part for part in parts[:count] if isinstance(part, TensorData) and part.transform is None]
        if len(same_view) == count:
            columns = ([part.x for part in same_view], [part.targets for part in same_view])
            joined.append(TensorData(*map(torch.cat, columns)))
        else:
            joined.append(ConcatDataset(parts[:count]))
    return Stream(stream.name, joined)


def _versions() -> dict[str, str]:
    packages = ("rwalk", "torch", "numpy", "scikit-learn", "datasets", "accelerate")
    installed = {package: version(package) for package in packages if find_spec(IMPORT_NAMES.get(package, package))}
    return {"python": platform.python_version(), **installed}
