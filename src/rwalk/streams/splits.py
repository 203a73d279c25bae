"""A labelled dataset in its two parts, the unit that scenarios are made of."""

from __future__ import annotations

from dataclasses import dataclass

from rwalk.streams.data import TensorData
from rwalk.streams.selecting import class_numbers

__all__ = ["Data"]


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
        class_numbers(self.name, self.train.targets, self.test.targets)
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
