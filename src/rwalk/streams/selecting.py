"""Some of a dataset's samples, in memory where the dataset is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from rwalk.streams.data import TensorData
from rwalk.streams.in_memory import as_tensor_data

__all__ = ["class_numbers", "join", "select"]


def select(dataset: Dataset[Any], positions: Tensor) -> Dataset[Any]:
    """The samples at these positions.

    Args:
        dataset: Any dataset.
        positions: Shape (M,), int64, from 0.

    Returns:
        A copy of them in memory where ``dataset`` is a ``TensorData``; else torch's ``Subset``, which copies nothing.
    """
    if isinstance(dataset, TensorData):
        return dataset.subset(positions.to(dataset.targets.device))
    if type(dataset) is Subset:
        within = torch.as_tensor(dataset.indices, dtype=torch.int64)[positions]
        return Subset(dataset.dataset, within.tolist())
    return Subset(dataset, positions.tolist())


def join(parts: list[Dataset[Any]]) -> Dataset[Any]:
    """Several datasets as one, in memory where they are and look alike."""
    if len(parts) == 1:
        return parts[0]
    whole: ConcatDataset[Any] = ConcatDataset(parts)
    data = as_tensor_data(whole)
    return whole if data is None else data


def class_numbers(name: str, train: Tensor, test: Tensor) -> list[int]:
    """The classes of a dataset, ascending.

    Args:
        name: Name of the dataset or benchmark, for the message.
        train: Labels of the training data, shape (N,), int64.
        test: Labels of the test data, shape (M,), int64.

    Raises:
        ValueError: A class has samples in one of the two only.
    """
    classes, tested = train.unique().tolist(), test.unique().tolist()
    for label in sorted(set(classes) ^ set(tested)):
        missing = "training" if label in tested else "test"
        raise ValueError(
            f"class {label} of {name} is missing from the {missing} data: each class needs samples in both "
            f"(training has {len(classes)} classes, test {len(tested)})"
        )
    return [int(label) for label in classes]
