"""Metrics of a strategy, and the accuracy matrix of its stream."""

from __future__ import annotations

from typing import Any

from rwalk.metrics import AccuracyMatrix
from rwalk.streams import task_label_of, taught_after
from rwalk.training.events import BasePlugin
from rwalk.training.running import RunningMean

__all__ = ["EvaluationPlugin"]


class EvaluationPlugin(BasePlugin):
    """Collects loss and accuracy as they arise and computes everything else from them.

    Sums stay on the device; a number is read where somebody asks for it, or where a row of the matrix is filled. Names
    of metrics are Avalanche's: ``Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp002``,
    ``Top1_Acc_Stream/eval_phase/test_stream``, ``Loss_Stream/…``, ``StreamForgetting/eval_phase/test_stream``,
    ``StreamBWT/…``, and with ``track_training`` ``Top1_Acc_Epoch/train_phase/train_stream`` and ``Loss_Epoch/…``.

    Args:
        track_training: Also measure accuracy and loss on training batches, per epoch.

    Accuracy is that of the largest output against class labels, shape (B,).

    Attributes:
        matrices: Accuracy matrix by stream name. A row is filled by an evaluation of the stream between the end of one
            experience and the beginning of the next; one before the first experience measures the untrained model. Of a
            task-free stream the rows are filled at its milestones.
    """

    supports_distributed = True

    def __init__(self, *, track_training: bool = False) -> None:
        self.track_training = track_training
        self.matrices: dict[str, AccuracyMatrix] = {}
        self._last: dict[str, RunningMean | float] = {}
        self._learned = 0
        self._learning = False
        self._experience = _Tally()
        self._stream = _Tally()
        self._epoch = _Tally()
        self._row: dict[int, RunningMean] = {}

    def get_last_metrics(self) -> dict[str, Any]:
        """The last value of every metric, by name."""
        values = {name: float(value) for name, value in self._last.items()}
        self._last.update(values)
        return values

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
        self._publish("Exp/eval_phase", experience.origin_stream.name, place, self._experience)
        self._row[experience.current_experience] = self._experience.accuracy
        self._stream.merge(self._experience)

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Publish the stream's mean, and fill the stream's row of the accuracy matrix."""
        if not self._row:
            return
        stream = strategy.current_eval_stream[0].origin_stream
        self._publish("Stream/eval_phase", stream.name, "", self._stream)
        measured_from_the_first = list(self._row) == list(range(len(self._row)))
        taught = () if self._learning or not measured_from_the_first else taught_after(stream, self._learned)
        if not taught:
            return
        matrix = self.matrices.setdefault(stream.name, AccuracyMatrix(len(stream)))
        for task in taught:
            matrix.record(task, [float(accuracy) for accuracy in self._row.values()])
        summary = matrix.summary()
        for key, name in (("forgetting", "StreamForgetting"), ("backward_transfer", "StreamBWT")):
            value = summary[key]
            if value is not None:
                self._last[f"{name}/eval_phase/{stream.name}_stream"] = value

    def _publish(self, phase: str, stream: str, place: str, tally: _Tally) -> None:
        self._last[f"Top1_Acc_{phase}/{stream}_stream{place}"] = tally.accuracy
        self._last[f"Loss_{phase}/{stream}_stream{place}"] = tally.loss


class _Tally:
    """Accuracy and loss over batches."""

    def __init__(self) -> None:
        self.accuracy, self.loss = RunningMean(), RunningMean()

    @property
    def samples(self) -> int:
        return self.accuracy.count

    def add(self, strategy: Any) -> None:
        right = strategy.mb_output.argmax(dim=-1) == strategy.mb_y
        if strategy.is_training:
            self.loss.add_mean(strategy.loss, len(right))
        else:
            losses = strategy.engine.gather(strategy.loss.detach().expand(len(right)))
            self.loss.add_sum(losses.sum(), len(losses))
            right = strategy.engine.gather(right)
        self.accuracy.add_sum(right.sum(), len(right))

    def merge(self, other: _Tally) -> None:
        self.accuracy.merge(other.accuracy)
        self.loss.merge(other.loss)
