"""What a strategy is doing, through Python's logging."""

from __future__ import annotations

import logging
from typing import Any

from rwalk.metrics.tally import ACCURACY, LOSS, Tally
from rwalk.training.events import BasePlugin
from rwalk.training.plugins.evaluation import answers_of, experience_key

__all__ = ["LoggingPlugin"]


class LoggingPlugin(BasePlugin):
    """Logs the end of each epoch with its mean loss, and each evaluation with its accuracy, or its loss without one.

    Args:
        logger: Where to; the logger ``rwalk`` if None.
        level: At which level.
    """

    supports_distributed = True

    def __init__(self, logger: logging.Logger | None = None, level: int = logging.INFO) -> None:
        self.logger = logger if logger is not None else logging.getLogger("rwalk")
        self.level = level
        self._tally, self._iterations = Tally(), 0

    def moment_dict(self, strategy: Any) -> dict[str, Any]:
        """What was counted of this epoch."""
        return {"tally": self._tally.state_dict(), "iterations": self._iterations}

    def load_moment_dict(self, strategy: Any, moment: dict[str, Any]) -> None:
        """Go on counting."""
        self._tally, self._iterations = Tally(), int(moment["iterations"])
        self._tally.load_state_dict(moment["tally"])

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Start counting."""
        self._tally, self._iterations = Tally(), 0

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count the loss."""
        self._tally.add(answers_of(strategy))
        self._iterations += 1

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Say what the epoch brought."""
        self.logger.log(
            self.level,
            "experience %d, epoch %d/%d: loss %.4f over %d iterations",
            strategy.experience.current_experience,
            strategy.clock.train_exp_epochs + 1,
            strategy.train_epochs,
            float(self._tally.values()[LOSS]),
            self._iterations,
        )

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Say what the model can do. Only here has the evaluator, which comes later, seen every experience."""
        metrics = strategy.evaluator.get_last_metrics()
        for experience in strategy.current_eval_stream:
            name, number = experience.origin_stream.name, experience.current_experience
            for metric, called in ((ACCURACY, "accuracy"), (LOSS, "loss")):
                key = experience_key(metric, experience)
                if key in metrics:
                    self.logger.log(self.level, "%s experience %d: %s %.4f", name, number, called, metrics[key])
                    break
