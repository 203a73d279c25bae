"""Batches: from memory by indexing, or from any other dataset through a DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rwalk.streams.collating import Collate, collate_fn_of
from rwalk.streams.data import TensorData
from rwalk.streams.in_memory import BatchReader, as_tensor_data

__all__ = ["Batches", "TensorLoader", "data_loader"]

LABELS_AHEAD = 64  # batches whose labels are fetched at once: they are small, and each operation has its price


class Batches(Protocol):
    """What a training loop iterates: batches, and how many."""

    def __iter__(self) -> Iterator[Any]:
        """Batches ``[x, y, task label]``, or mappings."""

    def __len__(self) -> int:
        """How many batches."""


class TensorLoader:
    """Batches of a ``TensorData``, taken by one operation each.

    Args:
        data: The samples.
        batch_size: Samples in a batch; the last one may be smaller.
        shuffle: A new order on each pass, drawn from torch's global generator.
        drop_last: Leave out a last batch that is not full.

    Raises:
        ValueError: ``batch_size`` is below 1.
    """

    def __init__(self, data: TensorData, batch_size: int, *, shuffle: bool, drop_last: bool = False) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r}: expected at least 1")
        self.data, self.batch_size, self.shuffle, self.drop_last = data, batch_size, shuffle, drop_last

    def __len__(self) -> int:
        """Batches in a pass."""
        whole, rest = divmod(len(self.data), self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    def __iter__(self) -> Iterator[list[Tensor]]:
        """One pass."""
        size = self.batch_size
        if not self.shuffle:
            for start in range(0, len(self) * size, size):
                yield self.data.batch(slice(start, start + size))
            return
        order = torch.randperm(len(self.data)).to(self.data.targets.device)[: len(self) * size]
        for start in range(0, len(order), size * LABELS_AHEAD):
            ahead = order[start : start + size * LABELS_AHEAD]
            labels = self.data.targets.index_select(0, ahead).split(size)
            tasks = self.data.task_labels.index_select(0, ahead).split(size)
            for chosen, y, task in zip(ahead.split(size), labels, tasks, strict=True):
                yield [self.data.inputs(chosen), y, task]


def data_loader(
    dataset: Dataset[Any],
    batch_size: int,
    *,
    shuffle: bool,
    drop_last: bool = False,
    num_workers: int = 0,
    in_memory: bool = True,
    task_label: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    **options: Any,
) -> Batches:
    """The fastest way to batches of ``[x, y, task label]``, or, of rows that are mappings, of mappings.

    x and y are tensors or nested structures of them. A batch that is a mapping has the columns of its rows, and beside
    them ``task_labels``, shape (B,); a column ``label`` becomes ``labels``.

    Args:
        dataset: Tensors in memory (see ``as_tensor_data``) are batched there; anything else is read sample by sample
            through ``torch.utils.data.DataLoader``.
        batch_size: Samples in a batch.
        shuffle: A new order on each pass.
        drop_last: Leave out a last batch that is not full.
        num_workers: Processes that load batches; above 0 a ``DataLoader`` is used for any dataset.
        in_memory: With False, a ``DataLoader`` even for tensors in memory; it reads whole batches of them.
        task_label: For samples ``(x, y)`` that carry none.
        collate_fn: Makes samples, as the dataset gives them, a batch ``(x, y)``, ``(x, y, task label)`` or a mapping.
            If None, the attribute of that name that the dataset (or what it is part of) has, else
            ``rwalk.streams.collating.collate``.
        options: Further arguments of ``DataLoader``.
    """
    function = collate_fn or collate_fn_of(dataset)
    data = as_tensor_data(dataset, task_label) if function is None else None
    if data is not None and in_memory and num_workers == 0 and not options:
        return TensorLoader(data, batch_size, shuffle=shuffle, drop_last=drop_last)
    read = dataset
    if data is not None:
        read, options["collate_fn"] = BatchReader(data), BatchReader.collate
    else:
        options["collate_fn"] = Collate(function, task_label)
    return DataLoader(
        read, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, num_workers=num_workers, **options
    )
