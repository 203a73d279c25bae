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

from rwalk.errors import MissingExtraError
from rwalk.streams import Benchmark, Experience, Stream, TensorData, labels_of

__all__ = ["stream_from_avalanche", "to_avalanche"]


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
