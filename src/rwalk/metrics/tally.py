"""All metrics over some batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rwalk.metrics.answers import Answers
from rwalk.metrics.others import OtherMetric
from rwalk.metrics.running import RunningMean

__all__ = ["ACCURACY", "LOSS", "Tally"]

#: Avalanche's names.
ACCURACY, LOSS = "Top1_Acc", "Loss"


class Tally:
    """Loss, accuracy where there is one, and other metrics.

    Args:
        others: See ``rwalk.metrics.others.chosen_metrics``.

    Example:
        >>> import torch
        >>> tally = Tally()
        >>> scores = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> tally.add(Answers.of(scores, torch.tensor([0, 1]), loss=torch.tensor(0.5), samples=2))
        >>> {name: float(value) for name, value in tally.values().items()}
        {'Top1_Acc': 0.5, 'Loss': 0.5}
    """

    def __init__(self, others: Mapping[str, Any] | None = None) -> None:
        self._loss, self._accuracy, self._has_accuracy = RunningMean(), RunningMean(), False
        self._others = {name: OtherMetric(name, kind) for name, kind in (others or {}).items()}

    @property
    def samples(self) -> int:
        """How many targets were counted."""
        return int(self._loss.count)

    def add(self, batch: Answers) -> None:
        """Count a batch."""
        self._loss.add_sum(batch.loss, batch.count)
        if batch.right is not None:
            self._has_accuracy = True
            self._accuracy.add_sum(batch.right, batch.count)
        if batch.answers is not None and batch.targets is not None:
            for other in self._others.values():
                other.add(batch.answers, batch.targets, classes=batch.right is not None)

    def values(self) -> dict[str, Any]:
        """What was measured, by metric; each is a number as soon as ``float`` asks for it."""
        accuracy = {ACCURACY: self._accuracy} if self._has_accuracy else {}
        others = {name: other for name, other in self._others.items() if other.metric is not None}
        return {**accuracy, LOSS: self._loss, **others}

    def higher_is_better(self, metric: str) -> bool | None:
        """Whether more of a metric is better; None if there is no saying."""
        return self._others[metric].higher_is_better if metric in self._others else metric == ACCURACY

    def state_dict(self) -> dict[str, Any]:
        """What was counted so far."""
        others = {name: other.state_dict() for name, other in self._others.items()}
        means = {"loss": self._loss.state_dict(), "accuracy": self._accuracy.state_dict()}
        return {**means, "has_accuracy": self._has_accuracy, "others": others}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on counting from a ``state_dict``."""
        self._loss.load_state_dict(state_dict["loss"])
        self._accuracy.load_state_dict(state_dict["accuracy"])
        self._has_accuracy = bool(state_dict["has_accuracy"])
        for name, other in self._others.items():
            other.load_state_dict(state_dict["others"][name])
