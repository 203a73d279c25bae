"""Batches: from memory by indexing, from any other dataset through a DataLoader, or from new and old data together."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from rwalk.streams.data import TensorData
from rwalk.streams.in_memory import BatchReader, as_tensor_data

__all__ = ["Batches", "MixedLoader", "TensorLoader", "data_loader"]

LABELS_AHEAD = 64  # batches whose labels are fetched at once: they are small, and each operation has its price


class Batches(Protocol):
    """What a training loop iterates: batches, and how many."""

    def __iter__(self) -> Iterator[Any]:
        """Batches ``[x, y, task label]``."""
        ...

    def __len__(self) -> int:
        """How many batches."""
        ...


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


class MixedLoader:
    """Each batch holds samples of the new data and an even share of remembered ones.

    The remembered data is gone through in a new random order again and again; its share is always full, so that few
    exemplars weigh as much as many.

    Args:
        new: Batches ``[x, y, task label]`` of the new data; they determine the length of a pass.
        old: The remembered data.
        old_batch_size: Remembered samples in each batch.

    Raises:
        ValueError: ``old_batch_size`` is below 1.
    """

    def __init__(self, new: Batches, old: TensorData, old_batch_size: int) -> None:
        if old_batch_size < 1:
            raise ValueError(f"old_batch_size={old_batch_size!r}: expected at least 1")
        self.new, self.old, self.old_batch_size = new, old, old_batch_size

    def __len__(self) -> int:
        """Batches in a pass."""
        return len(self.new)

    def __iter__(self) -> Iterator[list[Tensor]]:
        """One pass over the new data."""
        queue = torch.empty(0, dtype=torch.int64)
        for batch in self.new:
            if len(queue) < self.old_batch_size:
                rounds = -((len(queue) - self.old_batch_size) // len(self.old))
                queue = torch.cat([queue, *(torch.randperm(len(self.old)) for _ in range(rounds))])
            chosen, queue = queue[: self.old_batch_size], queue[self.old_batch_size :]
            positions = chosen.to(self.old.targets.device)
            labels = (part.index_select(0, positions) for part in (self.old.targets, self.old.task_labels))
            old = (self.old.inputs(positions), *labels)
            yield [torch.cat([a, b.to(a.device)]) for a, b in zip(batch, old, strict=True)]


def data_loader(
    dataset: Dataset[Any],
    batch_size: int,
    *,
    shuffle: bool,
    drop_last: bool = False,
    num_workers: int = 0,
    in_memory: bool = True,
    task_label: int = 0,
    **options: Any,
) -> Batches:
    """The fastest way to batches of ``[x, y, task label]``.

    Args:
        dataset: Tensors in memory (see ``as_tensor_data``) are batched there; anything else is read sample by sample
            through ``torch.utils.data.DataLoader``.
        batch_size: Samples in a batch.
        shuffle: A new order on each pass.
        drop_last: Leave out a last batch that is not full.
        num_workers: Processes that load batches; above 0 a ``DataLoader`` is used for any dataset.
        in_memory: With False, a ``DataLoader`` even for tensors in memory; it reads whole batches of them.
        task_label: For samples ``(x, y)`` that carry none.
        options: Further arguments of ``DataLoader``.
    """
    data = as_tensor_data(dataset, task_label)
    if data is not None and in_memory and num_workers == 0 and not options:
        return TensorLoader(data, batch_size, shuffle=shuffle, drop_last=drop_last)
    read = dataset
    if data is not None and "collate_fn" not in options:
        read, options["collate_fn"] = BatchReader(data), BatchReader.collate
    options.setdefault("collate_fn", partial(_collate_with_task, task_label))
    return DataLoader(
        read, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, num_workers=num_workers, **options
    )


def _collate_with_task(task_label: int, samples: list[Any]) -> Any:
    """Collate as torch does, and give samples ``(x, y)`` the task label."""
    batch = list(default_collate(samples))
    if len(batch) == 2:
        batch.append(torch.full((len(samples),), task_label, dtype=torch.int64))
    return batch
