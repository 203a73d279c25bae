"""Class numbers from 0, whatever the labels were."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rwalk.streams.data import TensorData
from rwalk.streams.selecting import class_numbers
from rwalk.streams.splits import Data
from rwalk.streams.stratified import hold_out

__all__ = ["numbered_from_zero", "parts"]


def numbered_from_zero(name: str, train: TensorData, test: TensorData, class_names: Sequence[str] = ()) -> Data:
    """Training and test data whose classes are 0, 1, … in ascending order of their labels.

    Args:
        name: What the data is called.
        train: Training data.
        test: Test data.
        class_names: Name of each *label*; classes that have labels beyond them are named by their label.

    Raises:
        ValueError: A class has samples in one of the two only.

    Example:
        >>> part = TensorData(torch.zeros(3, 1), torch.tensor([7, 3, 7]))
        >>> data = numbered_from_zero("toy", part, part)
        >>> data.train.targets.tolist(), data.class_names
        ([1, 0, 1], ('3', '7'))
    """
    classes = class_numbers(name, train.targets, test.targets)
    names = [class_names[label] if label < len(class_names) else str(label) for label in classes]
    if classes == list(range(len(classes))):
        return Data(name, train, test, tuple(names) if class_names else ())
    known = torch.tensor(classes)

    def numbered(part: TensorData) -> TensorData:
        return TensorData(part.x, torch.searchsorted(known, part.targets), part.task_labels, transform=part.transform)

    return Data(name, numbered(train), numbered(test), tuple(names))


def parts(found: Sequence[TensorData], test_fraction: float | None) -> tuple[TensorData, TensorData]:
    """Training and test data: both as found, or the second held out of the first.

    Args:
        found: One or two datasets.
        test_fraction: Share to hold out of a single one; always the same samples.
    """
    if test_fraction is None:
        train, test = found
        return train, test
    kept, held = hold_out(found[0].targets, test_fraction, seed=0)
    return found[0].subset(kept), found[0].subset(held)
