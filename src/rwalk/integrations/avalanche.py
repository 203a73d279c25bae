"""Avalanche: its streams in this package's templates, and this package's benchmarks in Avalanche's strategies.

The plugin needs nothing from here: ``rwalk.training.RWalkPlugin`` goes into an Avalanche strategy as it is, and an
Avalanche stream into ``rwalk.training.Naive`` too. These functions bring the data into memory, where batches cost less.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rwalk.core import RWalkConfig
from rwalk.core.checking import SCHEMA
from rwalk.core.names import canonical_names
from rwalk.errors import MissingExtraError, RWalkError
from rwalk.streams import Benchmark, Experience, Stream, TensorData, labels_of

__all__ = ["state_from_avalanche", "stream_from_avalanche", "to_avalanche"]


def state_from_avalanche(plugin: Any, *, tasks: int, steps: int) -> dict[str, Any]:
    """What Avalanche's own RWalk plugin has learned, as a state that an ``RWalk`` goes on from.

    Call it in the process that trained, between two experiences: nothing has to be stored and read by Avalanche.

    Args:
        plugin: An ``avalanche.training.plugins.RWalkPlugin`` after at least one experience.
        tasks: Experiences that it has learned, ``strategy.clock.train_exp_counter``.
        steps: Iterations so far, ``strategy.clock.train_iterations``.

    Returns:
        A state for ``load_state_dict`` (of an ``RWalk`` on the same model, with ``RWalkConfig.avalanche()``), or for
        ``rwalk.core.files.save_state``. Parameters that the plugin did not weigh are absent.

    Raises:
        RWalkError: No experience has ended yet.
    """
    if plugin.exp_penalties is None or tasks < 1:
        raise RWalkError("Avalanche's plugin has no importances yet: they are there after the first experience")
    config = RWalkConfig.avalanche(ewc_lambda=plugin.ewc_lambda, ewc_alpha=plugin.ewc_alpha, delta_t=plugin.delta_t)
    kept = {
        "fisher": plugin.iter_importance,
        "score": plugin.exp_scores,
        "importance": plugin.exp_penalties,
        "anchor": plugin.exp_params,
    }
    parameters = {}
    names = list(plugin.exp_penalties)
    for name, ours in zip(names, canonical_names(names), strict=True):
        tensors = {quantity: found[name].data.detach().clone() for quantity, found in kept.items()}
        if config.keeps_task_score:
            tensors["task_score"] = torch.zeros_like(tensors["score"])
        parameters[ours] = {"updates": 2, "last_task": tasks - 1, **tensors}
    counters = {"tasks": tasks, "steps": steps, "task_steps": 0, "window_steps": 0}
    return {"schema": SCHEMA, "config": config.to_dict(), **counters, "parameters": parameters}


def stream_from_avalanche(experiences: Iterable[Any]) -> Stream:
    """Read an Avalanche stream into memory.

    Args:
        experiences: An Avalanche stream, such as ``benchmark.train_stream``; samples ``(x, y, task label)`` with inputs
            of one shape.

    Returns:
        A stream of the same name, experiences and task labels. Each sample is read once: a random transform is frozen
        as it came out.
    """
    chosen = list(experiences)
    datasets = [TensorData.from_samples([e.dataset[i] for i in range(len(e.dataset))]) for e in chosen]
    tasks = [experience.task_labels[0] if hasattr(experience, "task_labels") else 0 for experience in chosen]
    return Stream(chosen[0].origin_stream.name, datasets, tasks)


def to_avalanche(benchmark: Benchmark) -> Any:
    """Make an Avalanche benchmark of the same data.

    Args:
        benchmark: Any of ``rwalk.streams``; its datasets hold tensors.

    Returns:
        An ``avalanche.benchmarks.CLScenario`` with both streams, task labels and class timeline.

    Raises:
        MissingExtraError: avalanche-lib is not installed.
    """
    try:
        from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels
        from avalanche.benchmarks.utils import (
            DataAttribute,
            as_taskaware_classification_dataset,
            make_avalanche_dataset,
        )
    except ImportError as error:
        raise MissingExtraError("to_avalanche", "avalanche", error) from error

    def dataset(experience: Experience) -> Any:
        targets = labels_of(experience.dataset).tolist()
        tasks = DataAttribute([experience.task_label] * len(targets), "targets_task_labels", use_in_getitem=True)
        attributes = [DataAttribute(targets, "targets"), tasks]
        pairs = make_avalanche_dataset(_Pairs(experience.dataset), data_attributes=attributes)
        return as_taskaware_classification_dataset(pairs)

    both = (benchmark.train_stream, benchmark.test_stream)
    streams = {stream.name: [dataset(experience) for experience in stream] for stream in both}
    result = with_task_labels(with_classes_timeline(benchmark_from_datasets(**streams)))
    for stream in (result.train_stream, result.test_stream):
        for experience in stream:
            # Avalanche's multi-head classifier indexes a tensor with them, which a set cannot
            experience.classes_in_this_experience = sorted(experience.classes_in_this_experience)
    return result


class _Pairs(Dataset[tuple[Tensor, int]]):
    """Samples ``(x, y)``; Avalanche adds the task label itself."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self._samples = dataset

    def __len__(self) -> int:
        return len(self._samples)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        x, y = self._samples[index][:2]
        return torch.as_tensor(x), int(y)
