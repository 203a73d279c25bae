"""Stop when a metric no longer improves."""

from __future__ import annotations

import logging
import math
from copy import deepcopy
from typing import Any, Literal

from rwalk.metrics.names import metric_key
from rwalk.training.events import BasePlugin
from rwalk.training.plugins.rwalk import RWalkPlugin
from rwalk.training.plugins.weight_average import WeightAveragePlugin

__all__ = ["EarlyStoppingPlugin"]

log = logging.getLogger(__name__)

#: What it keeps of an experience, beside the best weights.
COUNTERS = ("_best", "_last", "_best_at", "_looked_at", "_unseen", "_measured", "_stopped")


class EarlyStoppingPlugin(BasePlugin):
    """Ends an experience once a metric has not improved for a while; it always ends with its best weights.

    The metric must be measured while training goes on: give the strategy ``eval_every ≥ 1`` and ``train`` an
    evaluation stream of the name ``val_stream_name``. Weights that were measured last also take part: where the last
    epoch brings no evaluation, there is one more. A value that is not a number is no improvement. The best weights are
    there before any plugin's ``after_training_exp``, in whichever order plugins are listed; ``WeightAveragePlugin``
    leaves them as they are.

    Args:
        patience: Epochs (or iterations) without improvement, as far as evaluations show, before training stops.
        val_stream_name: Stream that is evaluated.
        metric_name: Metric to watch: ``"Top1_Acc_Stream"``, ``"Loss_Stream"``, …
        mode: Whether more or less is better.
        peval_mode: What ``patience`` counts.
        margin: Improvements must be larger than this.

    Raises:
        ValueError: A setting is out of range; or, in training, the metric is not measured.
    """

    supports_distributed = True

    def __init__(
        self,
        patience: int,
        val_stream_name: str = "valid",
        metric_name: str = "Top1_Acc_Stream",
        mode: Literal["max", "min"] = "max",
        peval_mode: Literal["epoch", "iteration"] = "epoch",
        margin: float = 0.0,
    ) -> None:
        if patience < 1:
            raise ValueError(f"patience={patience!r}: expected at least 1")
        if mode not in ("max", "min"):
            raise ValueError(f"mode={mode!r}: expected 'max' or 'min'")
        if peval_mode not in ("epoch", "iteration"):
            raise ValueError(f"peval_mode={peval_mode!r}: expected 'epoch' or 'iteration'")
        self.patience, self.margin, self.peval_mode, self.stream = patience, margin, peval_mode, val_stream_name
        self.sign = 1.0 if mode == "max" else -1.0
        self.key = metric_key(metric_name, val_stream_name)
        self._start()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Each experience has its own best."""
        self._start()
        strategy.when_trained(self._finish)

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """There is something new to look at, as soon as the evaluator has published it."""
        self._unseen |= any(e.origin_stream.name == self.stream for e in strategy.current_eval_stream)

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Look at the metric between epochs."""
        if strategy.clock.train_exp_epochs > 0 and not self._measured and not self._unseen:
            self._refuse()
        self._look(strategy)

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Look at the metric between iterations."""
        self._look(strategy)

    def moment_dict(self, strategy: Any) -> dict[str, Any]:
        """The best weights, what was measured of them, and since when."""
        kept = None
        if self._kept is not None:
            weights, (last, rows) = self._kept
            stored = {
                stream: {place: tally.state_dict() for place, tally in row.items()} for stream, row in rows.items()
            }
            kept = [dict(weights), {name: float(value) for name, value in last.items()}, stored]
        return {"kept": kept, **{name: getattr(self, name) for name in COUNTERS}}

    def load_moment_dict(self, strategy: Any, moment: dict[str, Any]) -> None:
        """Go on watching."""
        vars(self).update({name: moment[name] for name in COUNTERS})
        if moment["kept"] is not None:
            best, last, stored = moment["kept"]
            rows = {stream: strategy.evaluator.tallies(row) for stream, row in stored.items()}
            vars(self)["_kept"] = best, (last, rows)

    def _start(self) -> None:
        self._best: float = math.nan
        self._last: float = math.nan
        self._best_at = self._looked_at = 0
        self._kept: tuple[dict[str, Any], Any] | None = None  # the best weights, and what was measured of them
        self._unseen: bool = False
        self._measured: bool = False
        self._stopped: bool = False

    def _look(self, strategy: Any) -> None:
        """Take up a value that was measured with the present weights."""
        if self._stopped or not self._unseen:
            return
        metrics = strategy.evaluator.get_last_metrics()
        if self.key not in metrics:
            self._refuse()
        self._last = metrics[self.key]
        self._unseen, self._measured, self._looked_at = False, True, strategy.clock.train_exp_iterations
        now = strategy.clock.train_exp_epochs if self.peval_mode == "epoch" else self._looked_at
        if not math.isnan(self._last) and (self._kept is None or self._gain() > self.margin):
            self._best, self._best_at = self._last, now
            self._kept = deepcopy(strategy.model.state_dict()), strategy.evaluator.measured()
        elif now - self._best_at >= self.patience:
            strategy.stop_training()
            self._stopped = True

    def _gain(self) -> float:
        return self.sign * (self._last - self._best)

    def _finish(self, strategy: Any) -> None:
        """The epochs are over: see what the last weights are worth, and put better ones back."""
        if not (self._stopped or self._unseen) and self._looked_at != strategy.clock.train_exp_iterations:
            strategy.evaluate_streams()
        self._look(strategy)
        if not self._measured:
            self._refuse()
        if self._kept is None:
            log.warning("early stopping: %s was never a number, so that no weights are the best", self.key)
        elif self._stopped or math.isnan(self._last) or self._gain() < 0 or _averages(strategy):
            weights, measured = self._kept
            for plugin in strategy.plugins:
                if isinstance(plugin, RWalkPlugin) and plugin.rwalk is not None:
                    plugin.rwalk.end_window()  # the walk was taken, though its weights go
            strategy.model.load_state_dict(weights)
            strategy.evaluator.measured_again(measured, strategy.model)
        self._start()

    def _refuse(self) -> None:
        raise ValueError(
            f"early stopping watches {self.key!r}, which is not measured: give the strategy eval_every=1 and "
            "train() an evaluation stream of that name"
        )


def _averages(strategy: Any) -> bool:
    """Whether even the last weights have to be put back, so that no average takes the place of what was measured."""
    return any(isinstance(plugin, WeightAveragePlugin) for plugin in strategy.plugins)
