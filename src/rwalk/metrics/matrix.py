"""The accuracy matrix, or that of another metric, filled row by row as training goes on."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from rwalk.metrics import functional as F

__all__ = ["AccuracyMatrix", "MetricMatrix", "completed"]

Row = Sequence[float | None]


class MetricMatrix:
    r"""Values :math:`a_{k,j}` of a metric on task j after training on task k.

    Rows and columns are tasks, in whichever order they are learned: k is the last of the tasks learned, and its row
    shows all of them. A task that is learned once more is the last one from then on, with a row of its own anew.

    Args:
        n_tasks: Number of tasks T.
        higher_is_better: False for losses and errors, whose forgetting is how far they rose. None: there is no better,
            and only averages are defined.

    Raises:
        ValueError: ``n_tasks`` is below 1.

    Attributes:
        values: Shape (T, T), float64, NaN where nothing was measured.
        untrained: Values of the untrained model, shape (T,), or None.
        order: Tasks learned, the last one last.

    Example:
        >>> loss = MetricMatrix(2, higher_is_better=False)
        >>> loss.record(0, [0.5, 3.0])
        >>> loss.record(1, [2.0, 0.5])
        >>> loss.summary()["average"], loss.summary()["forgetting"]
        (1.25, 1.5)
    """

    VALUES, AVERAGE, LEARNING = "values", "average", "learning"

    def __init__(self, n_tasks: int, *, higher_is_better: bool | None = True) -> None:
        if n_tasks < 1:
            raise ValueError(f"n_tasks={n_tasks!r}: expected at least 1")
        self.higher_is_better = higher_is_better
        self.values = torch.full((n_tasks, n_tasks), torch.nan, dtype=torch.float64)
        self.untrained: Tensor | None = None
        self.order: list[int] = []

    @classmethod
    def from_rows(cls, rows: Iterable[Row], untrained: Row | None = None) -> Any:
        """The matrix of tasks learned one after the other.

        Args:
            rows: Row k after task k, None or NaN where nothing was measured; a row without any value is a task that was
                not learned yet.
            untrained: Values of the untrained model, if they were measured.

        Example:
            >>> AccuracyMatrix.from_rows([[0.9, 0.1], [0.5, 0.8]], untrained=[0.1, 0.1]).summary()["forgetting"]
            0.4
        """
        listed = [_numbers(row) for row in rows]
        matrix = cls(len(listed))
        if untrained is not None:
            matrix.record(-1, untrained)
        for task, row in enumerate(listed):
            if not all(map(math.isnan, row)):
                matrix.record(task, row)
        return matrix

    @property
    def learned(self) -> int:
        """How many tasks have been learned."""
        return len(self.order)

    def learn(self, task: int) -> None:
        """A task has been learned, perhaps once more: its row is empty. Not needed where tasks come in their order."""
        self.order = [*(other for other in self.order if other != task), task]
        self.values[task] = torch.nan

    def record(self, task: int, values: Row) -> None:
        """Fill the row of a task that was learned before, or is now, after all those below it.

        Args:
            task: The task, from 0. -1 is the untrained model (needed for forward transfer).
            values: On tasks 0, 1, …; None or NaN where nothing was measured, as on tasks left out at the end.

        Raises:
            ValueError: The task or a value is out of range, or there are more values than tasks.
        """
        row = torch.tensor(_numbers(values), dtype=torch.float64)
        if not -1 <= task < len(self.values):
            raise ValueError(f"task={task!r}: this matrix has tasks 0 to {len(self.values) - 1}")
        if len(row) > len(self.values):
            raise ValueError(f"{len(row)} {self.VALUES} for {len(self.values)} tasks")
        self._check(row)
        whole = torch.full_like(self.values[0], torch.nan)
        whole[: len(row)] = row
        if task < 0:
            self.untrained = whole
            return
        self.values[task] = whole
        if task not in self.order:
            self.order += [other for other in range(task + 1) if other not in self.order]

    def fill(self, task: int, values: Mapping[int, float]) -> None:
        """As ``record``, on some tasks only, by task; what the row holds of others stays."""
        held = self.values[task] if task >= 0 else self.untrained
        row = [math.nan] * len(self.values) if held is None else held.tolist()
        for column, value in values.items():
            row[column] = value
        self.record(task, row)

    def summary(self, reference: Sequence[float] | None = None) -> dict[str, float | None]:
        """All metrics over the tasks learned so far; None where one is not defined or not measured.

        Args:
            reference: For each task learned, in that order, its value under a model trained jointly on it and those
                before; needed for intransigence.

        Raises:
            ValueError: The reference does not cover every task learned.
        """
        if reference is not None and len(reference) < self.learned:
            raise ValueError(f"the reference has {len(reference)} {self.VALUES} for {self.learned} tasks learned")
        order = self.order or [0]
        sign = math.nan if self.higher_is_better is None else 1.0 if self.higher_is_better else -1.0
        square = self.values[order][:, order]
        joint = None if reference is None else sign * torch.tensor(list(reference)[: len(order)], dtype=torch.float64)
        untrained = None if self.untrained is None else sign * self.untrained[order]
        return {
            self.AVERAGE: F.average_accuracy(square),
            "forgetting": F.forgetting(sign * square),
            "intransigence": F.intransigence(sign * square, joint),
            "backward_transfer": F.backward_transfer(sign * square),
            "forward_transfer": F.forward_transfer(sign * square, untrained),
            self.LEARNING: F.learning_accuracy(square),
        }

    def tolist(self) -> list[list[float | None]]:
        """Row k after task k, None where nothing was measured."""
        return [[None if math.isnan(value) else value for value in row] for row in self.values.tolist()]

    def state_dict(self) -> dict[str, Any]:
        """Everything that was recorded."""
        return {"values": self.values.clone(), "untrained": self.untrained, "order": list(self.order)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict``.

        Raises:
            ValueError: It is of another number of tasks.
        """
        if state_dict["values"].shape != self.values.shape:
            raise ValueError(f"a matrix of {len(state_dict['values'])} tasks for one of {len(self.values)}")
        self.values, self.order = state_dict["values"].clone(), list(state_dict["order"])
        self.untrained = state_dict["untrained"]

    def _check(self, row: Tensor) -> None:
        """Any number may be a metric's."""


class AccuracyMatrix(MetricMatrix):
    r"""Accuracies :math:`a_{k,j}` on task j after training on task k: fractions in [0, 1].

    Args:
        n_tasks: Number of tasks T.

    Raises:
        ValueError: ``n_tasks`` is below 1; in ``record``, also an accuracy that is no fraction.

    Example:
        >>> matrix = AccuracyMatrix(2)
        >>> matrix.record(0, [1.0, 0.0])
        >>> matrix.record(1, [0.5, 1.0])
        >>> matrix.summary()["average_accuracy"], matrix.summary()["forgetting"]
        (0.75, 0.5)
    """

    VALUES, AVERAGE, LEARNING = "accuracies", "average_accuracy", "learning_accuracy"

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)

    def _check(self, row: Tensor) -> None:
        if bool((row < 0).any() | (row > 1).any()):
            raise ValueError(f"accuracies {row.tolist()}: expected fractions in [0, 1]")


def completed(milestones: Sequence[int], learned: Sequence[int]) -> list[tuple[int, ...]]:
    """Which experiences of a test stream each training experience has completed, by being learned.

    Args:
        milestones: For each test experience, after how many training experiences it has been taught, ascending from 1.
            Its own are those since the milestone before; the last of these to be learned completes it.
        learned: Places of the training experiences learned so far, the last one last, each once.

    Returns:
        For each of these, places in the test stream.

    Example:
        >>> completed([1, 2, 3], [2, 0]), completed([2, 5, 5], [1, 0, 2, 3, 4])
        ([(2,), (0,)], [(), (0,), (), (), (1, 2)])
    """
    ends = sorted(set(milestones))
    missing = [end - begin for begin, end in pairwise([0, *ends])]
    found: list[tuple[int, ...]] = []
    for place in learned:
        group = bisect_right(ends, place)
        found.append(())
        if group < len(ends):
            missing[group] -= 1
            if missing[group] == 0:
                found[-1] = tuple(task for task, end in enumerate(milestones) if end == ends[group])
    return found


def _numbers(row: Row) -> list[float]:
    return [math.nan if value is None else float(value) for value in row]
