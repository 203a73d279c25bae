"""The accuracy matrix, filled row by row as training goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rwalk.metrics import functional as F

__all__ = ["AccuracyMatrix"]


class AccuracyMatrix:
    r"""Accuracies :math:`a_{k,j}` on task j after training on task k.

    Args:
        n_tasks: Number of tasks T.

    Example:
        >>> matrix = AccuracyMatrix(2)
        >>> matrix.record(0, [1.0, 0.0])
        >>> matrix.record(1, [0.5, 1.0])
        >>> matrix.summary()["average_accuracy"], matrix.summary()["forgetting"]
        (0.75, 0.5)
    """

    def __init__(self, n_tasks: int) -> None:
        if n_tasks < 1:
            raise ValueError(f"n_tasks={n_tasks!r}: expected at least 1")
        self.values = torch.full((n_tasks, n_tasks), torch.nan, dtype=torch.float64)
        self.untrained: Tensor | None = None
        self.learned = 0

    def record(self, task: int, accuracies: Sequence[float]) -> None:
        """Fill the row of a task just learned.

        Args:
            task: The task, from 0. -1 is the untrained model (needed for forward transfer).
            accuracies: Fractions in [0, 1] on tasks 0, 1, …; tasks left out at the end stay unmeasured.

        Raises:
            ValueError: The task or an accuracy is out of range, or there are more accuracies than tasks.
        """
        row = torch.tensor(list(accuracies), dtype=torch.float64)
        if not -1 <= task < len(self.values):
            raise ValueError(f"task={task!r}: this matrix has tasks 0 to {len(self.values) - 1}")
        if len(row) > len(self.values):
            raise ValueError(f"{len(row)} accuracies for {len(self.values)} tasks")
        if bool((row < 0).any() | (row > 1).any()):
            raise ValueError(f"accuracies {row.tolist()}: expected fractions in [0, 1]")
        if task < 0:
            self.untrained = torch.full_like(self.values[0], torch.nan)
            self.untrained[: len(row)] = row
        else:
            self.values[task, : len(row)] = row
            self.learned = max(self.learned, task + 1)

    def summary(self, reference: Sequence[float] | None = None) -> dict[str, float | None]:
        """All metrics over the tasks learned so far; None where one is not defined or not measured.

        Args:
            reference: Accuracy on each task k of a model trained jointly on tasks 1..k; needed for intransigence.

        Raises:
            ValueError: The reference does not cover every task learned.
        """
        square = self.values[: self.learned, : self.learned]
        if reference is not None and len(reference) < self.learned:
            raise ValueError(f"the reference has {len(reference)} accuracies for {self.learned} tasks learned")
        joint = None if reference is None else torch.tensor(list(reference)[: self.learned], dtype=torch.float64)
        if self.learned == 0:
            square = self.values[:1, :1]
        untrained = None if self.untrained is None else self.untrained[: len(square)]
        return {
            "average_accuracy": F.average_accuracy(square),
            "forgetting": F.forgetting(square),
            "intransigence": F.intransigence(square, joint),
            "backward_transfer": F.backward_transfer(square),
            "forward_transfer": F.forward_transfer(square, untrained),
            "learning_accuracy": F.learning_accuracy(square),
        }

    def tolist(self) -> list[list[float | None]]:
        """Row k after experience k, None where nothing was measured."""
        return [[None if math.isnan(value) else value for value in row] for row in self.values.tolist()]
