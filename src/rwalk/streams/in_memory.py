"""Datasets in memory, read a batch at a time instead of sample by sample, and parts of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from rwalk.streams.data import TensorData

__all__ = ["BatchReader", "as_tensor_data", "join", "select"]


def as_tensor_data(dataset: Dataset[Any], task_label: int = 0) -> TensorData | None:
    """The samples of a dataset as a ``TensorData``, if they are tensors in memory already.

    That is a ``TensorData``, torch's ``TensorDataset`` of ``(x, y)`` or ``(x, y, task label)``, and
    any ``Subset`` or ``ConcatDataset`` of these. Classes derived from torch's may read samples in another way and are
    no such data. Subsets and concatenations are copied.

    Otherwise it is None. Samples that carry no task label get the one given.

    Example:
        >>> pairs = TensorDataset(torch.eye(3), torch.tensor([0, 1, 0]))
        >>> len(as_tensor_data(ConcatDataset([pairs, Subset(pairs, [2])])))
        4
    """
    kind = type(dataset)
    if isinstance(dataset, TensorData):
        return dataset
    if isinstance(dataset, TensorDataset) and kind is TensorDataset:
        return _labelled(dataset.tensors, task_label)
    if isinstance(dataset, Subset) and kind is Subset:
        whole = as_tensor_data(dataset.dataset, task_label)
        positions = torch.as_tensor(dataset.indices, dtype=torch.int64)
        return whole.subset(positions.to(whole.targets.device)) if whole is not None and len(positions) else None
    if isinstance(dataset, ConcatDataset) and kind is ConcatDataset:
        return _joined([as_tensor_data(part, task_label) for part in dataset.datasets])
    return None


class BatchReader(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """A ``TensorData`` for a ``DataLoader``, which then asks for whole batches; goes with ``collate``."""

    def __init__(self, data: TensorData) -> None:
        self.data = data

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.data)

    def __getitems__(self, positions: list[int]) -> list[Tensor]:
        """A batch ``[x, y, task label]``."""
        return self.data.batch(torch.tensor(positions, device=self.data.targets.device))

    @staticmethod
    def collate(batch: list[Tensor]) -> list[Tensor]:
        """Nothing is left to do."""
        return batch


def select(dataset: Dataset[Any], positions: Tensor) -> Dataset[Any]:
    """The samples at these positions, shape (M,): a copy in memory of a ``TensorData``; else a ``Subset`` of it."""
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


def _labelled(tensors: tuple[Tensor, ...], task_label: int) -> TensorData | None:
    x, *rest = tensors
    if len(rest) not in (1, 2) or any(part.is_floating_point() for part in rest[1:]):
        return None
    try:
        return TensorData(x, *rest) if len(rest) == 2 else TensorData(x, rest[0], task_label)
    except ValueError:
        return None


def _joined(parts: list[TensorData | None]) -> TensorData | None:
    found = [part for part in parts if part is not None]
    first = found[0] if found else None
    if first is None or len(found) != len(parts) or not all(_alike(first, part) for part in found):
        return None
    tensors = (torch.cat([getattr(part, name) for part in found]) for name in ("x", "targets", "task_labels"))
    return TensorData(*tensors, transform=first.transform)


def _alike(one: TensorData, other: TensorData) -> bool:
    return one.transform is other.transform and all(
        (a.shape[1:], a.dtype, a.device) == (b.shape[1:], b.dtype, b.device)
        for a, b in ((one.x, other.x), (one.targets, other.targets))
    )
