"""Metrics of a strategy, and the matrix of each on each stream."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from rwalk.batches import scores_of
from rwalk.metrics.answers import Answers
from rwalk.metrics.matrix import MetricMatrix
from rwalk.metrics.names import metric_key
from rwalk.metrics.others import chosen_metrics
from rwalk.metrics.records import Records
from rwalk.metrics.tally import ACCURACY, LOSS, Tally
from rwalk.module_state import weights_version
from rwalk.streams import task_label_of
from rwalk.streams.identity import by_stream, experience_told, stream_told
from rwalk.training.events import BasePlugin

__all__ = ["EvaluationPlugin", "answers_of", "experience_key"]


class EvaluationPlugin(BasePlugin):
    """Collects metrics as they arise and computes everything else from them.

    Sums stay on the device; a number is read where somebody asks for it, or where a row of a matrix is filled. Names
    of metrics are Avalanche's: ``Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp002``,
    ``Top1_Acc_Stream/eval_phase/test_stream``, ``Loss_Stream/…``, ``StreamForgetting/eval_phase/test_stream``,
    ``StreamBWT/…``, and with ``track_training`` ``Top1_Acc_Epoch/train_phase/train_stream`` and ``Loss_Epoch/…``. Of
    other metrics than accuracy it is ``StreamForgetting_Loss/…``: how far the loss rose from its lowest.

    The loss is always measured. Accuracy is that of the largest score against class numbers, wherever targets are such:
    shape (B, ...) for scores (B, C, ...); those below 0, or ``ignore_index`` of the criterion, do not count. Elsewhere
    there is none (regression, several labels, soft labels), nor for sequences whose loss the model computes by itself:
    which score answers to which label is its own matter then. Means are weighted by what counts.

    Each metric has a matrix on each stream. A row is filled by an evaluation between the end of one experience and the
    beginning of the next, or of the very weights that an experience ends with; one before the first experience measures
    the untrained model. Rows belong to experiences, in whichever order and however many calls of ``train`` they are
    learned. Of a task-free stream they are filled at its milestones.

    Args:
        track_training: Also measure on training batches, per epoch.
        metrics: Further ones, of ``torchmetrics``: names of its classes, such as ``"F1Score"``, which are made for as
            many classes as the model has, or the metrics themselves; under their own names, or the keys of a mapping.

    Raises:
        ValueError: An unknown metric, or a name that is taken. In an evaluation, two different streams of one name.
        RWalkError: A metric is asked for by name and torchmetrics cannot be imported.
    """

    supports_distributed = True

    def __init__(self, *, track_training: bool = False, metrics: Iterable[Any] | Mapping[str, Any] = ()) -> None:
        self.track_training = track_training
        self.metrics = chosen_metrics(metrics, reserved=(ACCURACY, LOSS))
        self._last: dict[str, Any] = {}
        self._records, self._learning = Records(), False
        self._seen: dict[str, weakref.ref[Any]] = {}
        self._epoch = self._experience = self._stream = Tally()
        self._row: dict[int, Tally] = {}
        self._early: dict[str, tuple[dict[int, Tally], list[int]]] = {}

    @property
    def tables(self) -> dict[tuple[str, str], MetricMatrix]:
        """Matrix by metric and stream name."""
        return self._records.tables

    @property
    def matrices(self) -> dict[str, MetricMatrix]:
        """Accuracy matrix by stream name."""
        return {stream: matrix for (metric, stream), matrix in self.tables.items() if metric == ACCURACY}

    def get_last_metrics(self) -> dict[str, Any]:
        """The last value of every metric, by name."""
        values = {name: float(value) for name, value in self._last.items()}
        self._last.update(values)
        return values

    def measured(self) -> tuple[dict[str, Any], dict[str, dict[int, Tally]]]:
        """What was measured of the present weights while an experience is learned; see ``measured_again``."""
        return dict(self._last), {stream: row for stream, (row, _) in self._early.items()}

    def measured_again(self, measured: tuple[dict[str, Any], dict[str, dict[int, Tally]]], model: nn.Module) -> None:
        """The weights are those again of which this was measured, because they were put back."""
        self._last = {**self._last, **measured[0]}
        self._early = {stream: (row, weights_version(model)) for stream, row in measured[1].items()}

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """From here on the weights belong to no finished experience."""
        self._learning, self._early = True, {}

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """An experience is learned. If these very weights were evaluated, that is its row."""
        self._records.learn(experience_told(strategy.experience))
        self._learning = False
        for stream, (row, weights) in self._early.items():
            if weights == weights_version(strategy.model):
                self._record(stream, row)
        self._early = {}

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Start counting."""
        self._epoch = Tally(self.metrics)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count a training batch."""
        if self.track_training:
            self._epoch.add(answers_of(strategy, keep=bool(self.metrics)))

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Publish the epoch's mean."""
        if self.track_training:
            self._publish(self._epoch, "Epoch", strategy.experience.origin_stream.name, phase="train")

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Start counting."""
        self._stream, self._row = Tally(self.metrics), {}
        for experiences in by_stream(strategy.current_eval_stream):
            stream = experiences[0].origin_stream
            seen = self._seen.get(stream.name)
            if seen is None or seen() is not stream:
                self._records.call(stream.name, stream_told(stream))
                self._seen[stream.name] = weakref.ref(stream)

    def before_eval_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Start counting."""
        self._experience = Tally(self.metrics)

    def after_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count an evaluation batch."""
        answers = answers_of(strategy, keep=bool(self.metrics))
        self._experience.add(answers)
        self._stream.add(answers)

    def after_eval_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Publish the experience's mean."""
        for metric, value in self._experience.values().items():
            self._last[experience_key(metric, strategy.experience)] = value
        self._row[strategy.experience.current_experience] = self._experience

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Publish the stream's mean, and fill the row of what was learned last."""
        if not self._row:
            return
        stream = strategy.current_eval_stream[0].origin_stream.name
        self._publish(self._stream, "Stream", stream)
        if self._learning:
            self._early[stream] = self._row, weights_version(strategy.model)
        else:
            self._record(stream, self._row)

    def state_dict(self) -> dict[str, Any]:
        """What was measured, and after which experiences."""
        return {"last": self.get_last_metrics(), "learning": self._learning, **self._records.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict``."""
        self._last, self._learning, self._seen = dict(state_dict["last"]), state_dict["learning"], {}
        self._records.load_state_dict(state_dict)

    def moment_dict(self, strategy: Any) -> dict[str, Any]:
        """What was counted of this epoch, and what was measured of weights while an experience is learned."""
        now = weights_version(strategy.model)
        early = {
            stream: [{place: tally.state_dict() for place, tally in row.items()}, weights == now]
            for stream, (row, weights) in self._early.items()
        }
        return {"epoch": self._epoch.state_dict(), "early": early}

    def load_moment_dict(self, strategy: Any, moment: dict[str, Any]) -> None:
        """Go on counting."""
        self._epoch = Tally(self.metrics)
        self._epoch.load_state_dict(moment["epoch"])
        now = weights_version(strategy.model)
        self._early = {
            stream: (self.tallies(row), now if present else []) for stream, (row, present) in moment["early"].items()
        }

    def tallies(self, states: Mapping[int, Any]) -> dict[int, Tally]:
        """Tallies of this plugin's metrics from their states, by place."""
        found = {int(place): Tally(self.metrics) for place in states}
        for place, tally in found.items():
            tally.load_state_dict(states[place])
        return found

    def __getstate__(self) -> dict[str, Any]:
        """A copy knows its streams by what tells them apart, and holds no data."""
        return {**vars(self), "_seen": {}}

    def _publish(self, tally: Tally, level: str, stream: str, **where: Any) -> None:
        for metric, value in tally.values().items():
            self._last[metric_key(f"{metric}_{level}", stream, **where)] = value

    def _record(self, stream: str, row: dict[int, Tally]) -> None:
        self._last.update(self._records.record(stream, row))


def answers_of(strategy: Any, *, keep: bool = False) -> Answers:
    """What the current batch shows; in an evaluation, that of all processes. ``keep``: for other metrics too."""
    return Answers.of(
        scores_of(strategy.mb_output),
        strategy.mb_y,
        strategy.loss,
        len(strategy.mb_task_id),
        ignore_index=getattr(strategy._criterion, "ignore_index", None),
        classes_last=isinstance(strategy.mb_output, Mapping),
        aligned=not strategy.has_its_own_loss or getattr(strategy.mb_y, "ndim", 0) == 1,
        gather=None if strategy.is_training else strategy.engine.gather,
        keep=keep,
    )


def experience_key(metric: str, experience: Any) -> str:
    """The name under which a metric of one experience is published: ``experience_key("Top1_Acc", experience)``."""
    place = {"task": task_label_of(experience), "experience": experience.current_experience}
    return metric_key(f"{metric}_Exp", experience.origin_stream.name, **place)
