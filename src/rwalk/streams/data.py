"""Supervised data in memory, batched by indexing tensors, and the class labels of any data that has some."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from rwalk.batches import LABEL_COLUMNS

__all__ = ["NoClassLabelsError", "TensorData", "labels_of"]

BatchTransform = Callable[[Tensor], Tensor]


class TensorData(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Samples ``(x, y, task label)`` held as three tensors.

    Args:
        x: Inputs, shape (N, ...), any dtype.
        y: Class labels, shape (N,), whole numbers ≥ 0. Or other targets, shape (N, ...): floating point (regression,
            soft or several labels), or whole numbers in several dimensions (a label for each element of a sequence).
        task_label: One task label for all samples, or one per sample, shape (N,).
        transform: Applied to each *batch* of inputs as it is taken, so that many views of the same data (permutations,
            rotations) share its memory.

    Raises:
        TypeError: ``x`` or ``y`` is not a tensor.
        ValueError: Lengths differ, class labels go below 0, targets are truth values, or there are no samples.

    Example:
        >>> data = TensorData(torch.eye(3), torch.tensor([0, 1, 0]))
        >>> x, y, t = data.batch(torch.tensor([2, 0]))
        >>> y
        tensor([0, 0])
        >>> len(data.subset(data.targets == 1))
        1
    """

    def __init__(
        self, x: Tensor, y: Tensor, task_label: int | Tensor = 0, *, transform: BatchTransform | None = None
    ) -> None:
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            raise TypeError(f"expected tensors x and y, found {type(x).__name__} and {type(y).__name__}")
        if y.dim() == 0 or len(x) != len(y):
            raise ValueError(f"expected one label for each of {len(x)} inputs, found labels of shape {tuple(y.shape)}")
        if len(y) == 0:
            raise ValueError("no samples: a dataset needs at least one")
        if y.is_complex() or y.dtype is torch.bool:
            raise ValueError(f"targets have dtype {y.dtype}: expected whole numbers (classes) or floating point")
        self.x, self.targets = x, y if y.is_floating_point() else y.to(torch.int64)
        if _are_classes(self.targets):
            _check_classes(self.targets)
        labels = task_label
        if not isinstance(labels, Tensor):
            labels = torch.full((len(y),), labels, dtype=torch.int64, device=y.device)
        if labels.shape != y.shape[:1]:
            raise ValueError(f"expected one task label for each of {len(y)} samples, found shape {tuple(labels.shape)}")
        self.task_labels, self.transform = labels.to(torch.int64), transform

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """One sample."""
        x, y, t = self.batch(slice(index, index + 1) if index >= 0 else torch.tensor([index]))
        return x[0], y[0], t[0]

    def batch(self, index: Tensor | slice) -> list[Tensor]:
        """Several samples at once: inputs, targets, task labels."""
        x = self.x[index]
        return [x if self.transform is None else self.transform(x), self.targets[index], self.task_labels[index]]

    def inputs(self, positions: Tensor) -> Tensor:
        """Inputs at positions (B,), int64, as ``batch`` gives them, but faster."""
        # On a CPU index_select copies whole rows, where indexing goes element by element. It would lose the memory
        # format of images in channels_last, which indexing keeps.
        x = self.x.index_select(0, positions) if self.x.is_contiguous() else self.x[positions]
        return x if self.transform is None else self.transform(x)

    def subset(self, index: Tensor) -> TensorData:
        """The samples at these positions, or where this mask is true."""
        return TensorData(self.x[index], self.targets[index], self.task_labels[index], transform=self.transform)

    def with_task_label(self, task_label: int) -> TensorData:
        """The same samples under another task label; memory is shared."""
        return TensorData(self.x, self.targets, task_label, transform=self.transform)

    def with_transform(self, transform: BatchTransform) -> TensorData:
        """The same samples seen through a further transform, after the one there is; memory is shared."""
        chain = transform if self.transform is None else partial(_one_after_the_other, self.transform, transform)
        return TensorData(self.x, self.targets, self.task_labels, transform=chain)

    def to(self, device: torch.device | str) -> TensorData:
        """The same samples on another device."""
        moved = (tensor.to(device) for tensor in (self.x, self.targets, self.task_labels))
        return TensorData(*moved, transform=self.transform)

    @classmethod
    def from_samples(cls, samples: Sequence[tuple[Any, Any, Any]]) -> TensorData:
        """Stack samples ``(x, y, task label)`` of one input shape."""
        xs, ys, ts = zip(*samples, strict=True)
        try:
            targets = _whole(ys)
        except NoClassLabelsError:
            targets = torch.stack([torch.as_tensor(y) for y in ys])
        return cls(torch.stack([torch.as_tensor(x) for x in xs]), targets, _whole(ts))


class NoClassLabelsError(ValueError):
    """Targets that are no class labels: numbers with a fraction, several for a sample, or none at all."""


def labels_of(dataset: Dataset[Any]) -> Tensor:
    """Class labels of a dataset, shape (N,), int64.

    They are its ``targets``; else the second entry of each sample, or a row's ``labels`` or ``label``.
    Subsets, concatenations and tables are looked through, so that labels in memory are not read one by one.

    Raises:
        NoClassLabelsError: There are none: targets are no whole numbers, one for each sample.
        ValueError: They go below 0.

    Example:
        >>> labels_of([(0.5, 3), (0.7, 1)]), labels_of([{"text": "to be", "label": 2}])
        (tensor([3, 1]), tensor([2]))
    """
    if isinstance(dataset, Subset):
        return labels_of(dataset.dataset)[torch.as_tensor(dataset.indices, dtype=torch.int64)]
    if isinstance(dataset, ConcatDataset):
        return torch.cat([labels_of(part) for part in dataset.datasets])
    targets, table = getattr(dataset, "targets", None), getattr(dataset, "column_names", None)
    if targets is None and isinstance(table, list):
        targets = dataset[_label_column(dataset, table)][:]
    if targets is None:
        targets = (_target(dataset, position) for position in range(len(dataset)))  # type: ignore[arg-type]
    labels = _whole(targets)
    _check_classes(labels)
    return labels


def _target(dataset: Dataset[Any], position: int) -> Any:
    sample = dataset[position]
    if isinstance(sample, Mapping):
        return sample[_label_column(dataset, sample)]
    if not isinstance(sample, tuple | list) or len(sample) < 2:
        raise NoClassLabelsError(
            f"{type(dataset).__name__} is not labelled: expected `.targets`, samples (x, y, ...), or rows with 'labels'"
        )
    return sample[1]


def _label_column(dataset: Dataset[Any], columns: Iterable[str]) -> str:
    for name in LABEL_COLUMNS:
        if name in columns:
            return name
    raise NoClassLabelsError(
        f"{type(dataset).__name__} is not labelled: no 'labels' or 'label' among its columns {', '.join(columns)}"
    )


def _are_classes(targets: Tensor) -> bool:
    return targets.dim() == 1 and not (targets.is_floating_point() or targets.is_complex())


def _check_classes(labels: Tensor) -> None:
    if len(labels) and int(labels.min()) < 0:
        raise ValueError(
            f"labels go down to {int(labels.min())}: expected class numbers ≥ 0; leave samples without a class out"
        )


def _one_after_the_other(first: BatchTransform, second: BatchTransform, x: Tensor) -> Tensor:
    return second(first(x))


def _whole(labels: Any) -> Tensor:
    if not isinstance(labels, Tensor):
        try:
            labels = torch.tensor([operator.index(label) for label in labels], dtype=torch.int64)
        except TypeError as error:
            raise NoClassLabelsError(f"labels must be whole numbers, one for each sample: {error}") from error
    tensor: Tensor = labels
    if not _are_classes(tensor):
        raise NoClassLabelsError(
            f"labels have dtype {tensor.dtype} and shape {tuple(tensor.shape)}: expected (N,) whole numbers"
        )
    return tensor.to(torch.int64)
