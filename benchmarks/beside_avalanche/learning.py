"""A spec carried out by either framework, from the same weights over the same streams, and judged in one way."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from benchmarks.beside_avalanche.passes import ReplayInPasses
from benchmarks.peers import avalanche_naive, why_not
from rwalk.experiments.data import evaluated, stream_of
from rwalk.experiments.runner import OPTIMIZERS, build_learner, build_plugins, build_strategy, on_threads
from rwalk.experiments.spec import RunSpec
from rwalk.integrations.avalanche import to_avalanche
from rwalk.metrics import AccuracyMatrix
from rwalk.models import ModelCall
from rwalk.models.masking import mask_unseen
from rwalk.streams import Benchmark, Experience, Stream, TensorData
from rwalk.training import BasePlugin, ReplayPlugin
from rwalk.training.adaptation import adapt_model

__all__ = ["accuracies", "beginning", "by_avalanche", "by_rwalk", "by_rwalk_in_passes"]


def by_rwalk(spec: RunSpec) -> AccuracyMatrix:
    """Learn with rwalk's template and plugins, as ``rwalk run`` does."""
    return _by_rwalk(spec, build_plugins(spec))


def by_rwalk_in_passes(spec: RunSpec) -> AccuracyMatrix:
    """The same, with batches of new and remembered samples put together as Avalanche does it."""
    plugins = build_plugins(spec)
    return _by_rwalk(spec, [ReplayInPasses.like(p) if isinstance(p, ReplayPlugin) else p for p in plugins])


def by_avalanche(spec: RunSpec) -> AccuracyMatrix:
    """Learn with Avalanche's ``Naive``, its ``RWalkPlugin`` and its ``ReplayPlugin``.

    Raises:
        RuntimeError: Avalanche is not installed here.
    """
    reason = why_not("avalanche")
    if reason is not None:
        raise RuntimeError(reason)
    from benchmarks.beside_avalanche.guests import their_network, their_plugins

    data = stream_of(spec)
    # recorded, not ignored: Avalanche deprecates what its own replay calls, and turns filters off to say so
    with warnings.catch_warnings(record=True), on_threads(spec.threads):
        stream = to_avalanche(data).train_stream
        network = their_network(beginning(spec, data)[0], spec.heads, data.n_classes, stream)
        strategy = avalanche_naive(
            network,
            OPTIMIZERS[spec.optimizer](network.parameters(), spec.lr),
            train_mb_size=spec.batch_size,
            train_epochs=spec.epochs,
            device=torch.device(spec.device),
            plugins=their_plugins(spec, data, network),
        )
        return _learned(strategy, stream, evaluated(data))


def beginning(spec: RunSpec, data: Benchmark) -> tuple[nn.Module, Optimizer]:
    """The network that both start from, with its optimizer; the heads of all tasks are there already."""
    random.seed(spec.seed)
    np.random.seed(spec.seed % 2**32)
    torch.manual_seed(spec.seed)
    network, optimizer = build_learner(spec, data)
    if spec.heads == "multi":
        for experience in data.train_stream:
            adapt_model(network, optimizer, experience)
    return network, optimizer


@torch.no_grad()
def accuracies(model: nn.Module, stream: Sequence[Experience], seen: Iterable[int]) -> list[float]:
    """Accuracy on each experience, judged over the classes seen; models that take task labels get them.

    Args:
        model: Gives an output for every class.
        stream: Experiences with tensors in memory.
        seen: The classes that may be chosen.
    """
    model.eval()
    call, device = ModelCall(model), next(model.parameters()).device
    found = []
    for experience in stream:
        x, y, task_labels = (part.to(device) for part in _samples(experience))
        scores = call(x, task_labels)
        allowed = torch.zeros(scores.shape[1], dtype=torch.bool, device=device)
        allowed[list(seen)] = True
        found.append(float((mask_unseen(scores, allowed).argmax(dim=1) == y).double().mean()))
    return found


def _samples(experience: Experience) -> list[torch.Tensor]:
    if not isinstance(experience.dataset, TensorData):
        raise TypeError(f"expected test data in memory, found {type(experience.dataset).__name__}")
    return experience.dataset.batch(slice(None))


def _by_rwalk(spec: RunSpec, plugins: Sequence[BasePlugin]) -> AccuracyMatrix:
    data = stream_of(spec)
    with on_threads(spec.threads):
        strategy = build_strategy(spec, data, plugins)
        strategy.model, strategy.optimizer = beginning(spec, data)
        return _learned(strategy, data.train_stream, evaluated(data))


def _learned(strategy: Any, train_stream: Any, judged: Stream) -> AccuracyMatrix:
    matrix, seen = AccuracyMatrix(len(judged)), set[int]()
    for index, experience in enumerate(train_stream):
        strategy.train(experience)
        _check_finite(strategy.model, index)
        seen.update(experience.classes_in_this_experience)
        matrix.record(index, accuracies(strategy.model, judged[: index + 1], seen))
    return matrix


def _check_finite(model: nn.Module, index: int) -> None:
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise RuntimeError(
            f"weights are not finite after experience {index}: the penalty diverged (a smaller λ may help), or an "
            "experience has fewer than delta_t iterations, where Avalanche's plugin divides 0 by 0"
        )
