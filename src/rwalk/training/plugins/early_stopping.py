"""Stop when a metric no longer improves."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

from rwalk.training.events import BasePlugin

__all__ = ["EarlyStoppingPlugin"]


class EarlyStoppingPlugin(BasePlugin):
    """Ends an experience once a metric has not improved for a while, and restores the best weights.

    The metric must be measured while training goes on: give the strategy ``eval_every ≥ 1`` and ``train`` an
    evaluation stream of the name ``val_stream_name``.

    Args:
        patience: Epochs (or iterations) without improvement before training stops.
        val_stream_name: Stream that is evaluated.
        metric_name: Metric to watch: ``"Top1_Acc_Stream"`` or ``"Loss_Stream"``.
        mode: Whether more or less is better.
        peval_mode: What ``patience`` counts; the strategy's own ``peval_mode``.
        margin: Improvements must be larger than this.

    Raises:
        ValueError: A setting is out of range; or, in training, the metric is not measured.
    """

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
        self.patience, self.margin, self.peval_mode = patience, margin, peval_mode
        self.sign = 1.0 if mode == "max" else -1.0
        self.key = f"{metric_name}/eval_phase/{val_stream_name}_stream"
        self._best: float | None = None
        self._best_at = 0
        self._best_weights: dict[str, Any] = {}
        self._stopped = False

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Each experience has its own best."""
        self._best, self._best_at, self._best_weights, self._stopped = None, 0, {}, False

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Look at the metric between epochs."""
        if self.peval_mode == "epoch" and strategy.clock.train_exp_epochs > 0:
            self._look(strategy, strategy.clock.train_exp_epochs)

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Look at the metric between iterations."""
        if self.peval_mode == "iteration" and strategy.clock.train_exp_iterations > 0:
            self._look(strategy, strategy.clock.train_exp_iterations)

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """An iteration in which training was stopped still ran; the best weights come after it."""
        if self._stopped:
            strategy.model.load_state_dict(self._best_weights)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let the copy of the weights go."""
        self._best_weights = {}

    def _look(self, strategy: Any, now: int) -> None:
        value = strategy.evaluator.get_last_metrics().get(self.key)
        if value is None:
            raise ValueError(
                f"early stopping watches {self.key!r}, which is not measured: give the strategy eval_every=1 and "
                "train() an evaluation stream of that name"
            )
        if self._best is None or self.sign * (value - self._best) > self.margin:
            self._best, self._best_at = value, now
            self._best_weights = deepcopy(strategy.model.state_dict())
        elif now - self._best_at >= self.patience:
            strategy.model.load_state_dict(self._best_weights)
            strategy.stop_training()
            self._stopped = True
