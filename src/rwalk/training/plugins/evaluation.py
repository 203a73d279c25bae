"""Metrics of a strategy, and the accuracy matrix of its stream."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rwalk.metrics import AccuracyMatrix
from rwalk.streams import task_label_of
from rwalk.training.events import BasePlugin

__all__ = ["EvaluationPlugin"]


class EvaluationPlugin(BasePlugin):
    """Collects loss and accuracy as they arise and computes everything else from them.

    Sums stay on the device; a number is read only where an experience or epoch ends. Names of metrics are Avalanche's:
    ``Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp002``, ``Top1_Acc_Stream/eval_phase/test_stream``,
    ``Loss_Stream/…``, ``StreamForgetting/eval_phase/test_stream``, ``StreamBWT/…``, and with ``track_training``
    ``Top1_Acc_Epoch/train_phase/train_stream`` and ``Loss_Epoch/…``.

    Args:
        track_training: Also measure accuracy and loss on training batches, per epoch.

    Accuracy is that of the largest output against class labels, shape (B,).

    Attributes:
        matrices: Accuracy matrix by stream name. A row is filled by an evaluation of the stream between the end of one
            experience and the beginning of the next; one before the first experience measures the untrained model.
    """

    supports_distributed = True

    def __init__(self, *, track_training: bool = False) -> None:
        self.track_training = track_training
        self.matrices: dict[str, AccuracyMatrix] = {}
        self._last: dict[str, Any] = {}
        self._learned = 0
        self._learning = False
        self._experience = _Tally()
        self._stream = _Tally()
        self._epoch = _Tally()
        self._row: dict[int, float] = {}

    def get_last_metrics(self) -> dict[str, Any]:
        """The last value of every metric, by name."""
        return dict(self._last)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """From here on the weights belong to no finished experience."""
        self._learning = True

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """An experience is learned."""
        self._learned, self._learning = self._learned + 1, False

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Start counting."""
        self._epoch = _Tally()

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count a training batch."""
        if self.track_training:
            self._epoch.add(strategy)

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Publish the epoch's mean."""
        if self.track_training:
            self._publish("Epoch/train_phase", strategy.experience.origin_stream.name, "", self._epoch)

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Start counting."""
        self._stream, self._row = _Tally(), {}

    def before_eval_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Start counting."""
        self._experience = _Tally()

    def after_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count an evaluation batch."""
        self._experience.add(strategy)

    def after_eval_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Publish the experience's mean."""
        experience = strategy.experience
        place = f"/Task{task_label_of(experience):03d}/Exp{experience.current_experience:03d}"
        accuracy = self._publish("Exp/eval_phase", experience.origin_stream.name, place, self._experience)
        self._row[experience.current_experience] = accuracy
        self._stream.merge(self._experience)

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Publish the stream's mean, and fill the stream's row of the accuracy matrix."""
        if not self._row:
            return
        stream = strategy.current_eval_stream[0].origin_stream
        self._publish("Stream/eval_phase", stream.name, "", self._stream)
        measured_from_the_first = list(self._row) == list(range(len(self._row)))
        if self._learning or not measured_from_the_first or self._learned > len(stream):
            return
        matrix = self.matrices.setdefault(stream.name, AccuracyMatrix(len(stream)))
        matrix.record(self._learned - 1, list(self._row.values()))
        summary = matrix.summary()
        for key, name in (("forgetting", "StreamForgetting"), ("backward_transfer", "StreamBWT")):
            if summary[key] is not None:
                self._last[f"{name}/eval_phase/{stream.name}_stream"] = summary[key]

    def _publish(self, phase: str, stream: str, place: str, tally: _Tally) -> float:
        accuracy, loss = tally.result()
        self._last[f"Top1_Acc_{phase}/{stream}_stream{place}"] = accuracy
        self._last[f"Loss_{phase}/{stream}_stream{place}"] = loss
        return accuracy


class _Tally:
    """Sums of correct answers and losses, left on the device until they are asked for."""

    def __init__(self) -> None:
        self.correct: Tensor | float = 0.0
        self.loss: Tensor | float = 0.0
        self.samples = 0

    def add(self, strategy: Any) -> None:
        with torch.no_grad():
            right = strategy.mb_output.argmax(dim=-1) == strategy.mb_y
            losses = strategy.loss.detach().expand(len(right))
            if not strategy.is_training:
                right, losses = strategy.engine.gather(right), strategy.engine.gather(losses)
            self.correct = self.correct + right.sum()
            self.loss = self.loss + losses.sum()
            self.samples += len(right)

    def merge(self, other: _Tally) -> None:
        self.correct, self.loss = self.correct + other.correct, self.loss + other.loss
        self.samples += other.samples

    def result(self) -> tuple[float, float]:
        return float(self.correct) / max(self.samples, 1), float(self.loss) / max(self.samples, 1)
