"""A labelled dataset in its two parts, the unit that scenarios are made of: how it is divided and numbered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rwalk.streams.data import TensorData, labels_of

__all__ = ["Data", "check_fraction", "class_numbers", "hold_out", "numbered_from_zero", "parts"]


@dataclass(frozen=True, eq=False)
class Data:
    """Training and test data of the same classes.

    Attributes:
        name: What it is called.
        train: Training data.
        test: Test data.
        class_names: Name of each class, where class numbers run from 0; empty if they have none.

    Raises:
        ValueError: A class has samples in one of the two only, or inputs differ in shape.

    Example:
        >>> import torch
        >>> part = TensorData(torch.zeros(4, 3), torch.tensor([0, 1, 2, 1]))
        >>> data = Data("toy", part, part)
        >>> data.n_classes, data.input_shape
        (3, (3,))
    """

    name: str
    train: TensorData
    test: TensorData
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the two parts fit."""
        class_numbers(self.name, labels_of(self.train), labels_of(self.test))
        shapes = [tuple(part[0][0].shape) for part in (self.train, self.test)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"inputs of {self.name} have shape {shapes[0]} in training and {shapes[1]} in test data")

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.train.targets.unique())

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.train[0][0].shape)


def numbered_from_zero(name: str, train: TensorData, test: TensorData, class_names: Sequence[str] = ()) -> Data:
    """Training and test data whose classes are 0, 1, … in ascending order of their labels.

    ``class_names`` are those of the labels; classes that have labels beyond them are named by their label.

    Raises:
        ValueError: A class has samples in one of the two only.

    Example:
        >>> part = TensorData(torch.zeros(3, 1), torch.tensor([7, 3, 7]))
        >>> data = numbered_from_zero("toy", part, part)
        >>> data.train.targets.tolist(), data.class_names
        ([1, 0, 1], ('3', '7'))
    """
    classes = class_numbers(name, labels_of(train), labels_of(test))
    names = [class_names[label] if label < len(class_names) else str(label) for label in classes]
    if classes == list(range(len(classes))):
        return Data(name, train, test, tuple(names) if class_names else ())
    known = torch.tensor(classes)

    def numbered(part: TensorData) -> TensorData:
        return TensorData(part.x, torch.searchsorted(known, part.targets), part.task_labels, transform=part.transform)

    return Data(name, numbered(train), numbered(test), tuple(names))


def parts(found: Sequence[TensorData], test_fraction: float | None) -> tuple[TensorData, TensorData]:
    """Training and test data: both as found, or a share held out of the one there is, always the same samples."""
    if test_fraction is None:
        train, test = found
        return train, test
    kept, held = hold_out(labels_of(found[0]), test_fraction, seed=0)
    return found[0].subset(kept), found[0].subset(held)


def class_numbers(name: str, train: Tensor, test: Tensor) -> list[int]:
    """The classes of a dataset by its labels in training and test data, ascending.

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


def hold_out(targets: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Divide samples in two, each class in the same proportion.

    Of a class with n samples, ``fraction`` · n rounded to the nearest whole number are held out, at least one and at
    most n − 1.

    Args:
        targets: Class labels, shape (N,), int64.
        fraction: Share held out, between 0 and 1.
        seed: Draws which samples are held out.

    Returns:
        Positions kept and held out, each ascending; together 0 … N − 1.

    Raises:
        ValueError: ``fraction`` is out of range, or a class has a single sample.

    Example:
        >>> kept, held = hold_out(torch.tensor([0] * 8 + [1] * 4), 0.25, seed=0)
        >>> len(kept), len(held), int((held < 8).sum())
        (9, 3, 2)
    """
    check_fraction(fraction)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    by_class = order[targets.cpu()[order].argsort(stable=True)]
    classes, counts = targets.cpu().unique(return_counts=True)
    held = []
    for label, members in zip(classes.tolist(), by_class.split(counts.tolist()), strict=True):
        if len(members) == 1:
            raise ValueError(f"class {label} has one sample: nothing can be held out of it")
        share = int(fraction * len(members) + 0.5)
        held.append(members[: min(max(share, 1), len(members) - 1)])
    mask = torch.zeros(len(targets), dtype=torch.bool)
    mask[torch.cat(held)] = True
    return (~mask).nonzero().flatten(), mask.nonzero().flatten()


def check_fraction(fraction: float) -> None:
    """Refuse, with a ``ValueError``, a share that is not between 0 and 1."""
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"fraction={fraction!r}: expected a share between 0 and 1, such as 0.1")
