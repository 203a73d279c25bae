"""Counters of what has happened, and the evaluation that they trigger."""

from __future__ import annotations

from typing import Any, Literal

from rwalk.training.events import BasePlugin

__all__ = ["Clock", "PeriodicEval"]


class Clock(BasePlugin):
    """Counts training events. It is the last plugin, so that all others see the count of what is finished.

    Attributes:
        train_iterations: Training iterations in all.
        train_exp_counter: Experiences finished.
        train_exp_epochs: Epochs finished in this experience.
        train_exp_iterations: Iterations finished in this experience.
        train_epoch_iterations: Iterations finished in this epoch.
        total_iterations: Training and evaluation iterations in all.
    """

    def __init__(self) -> None:
        self.train_iterations = 0
        self.train_exp_counter = 0
        self.train_exp_epochs = 0
        self.train_exp_iterations = 0
        self.train_epoch_iterations = 0
        self.total_iterations = 0

    def state_dict(self) -> dict[str, Any]:
        """The counters."""
        return dict(vars(self))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        vars(self).update(state_dict)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """A new experience: its own counters start again."""
        self.train_exp_iterations = self.train_exp_epochs = 0

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """A new epoch: its own counter starts again."""
        self.train_epoch_iterations = 0

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count an iteration."""
        self.train_epoch_iterations += 1
        self.train_exp_iterations += 1
        self.train_iterations += 1
        self.total_iterations += 1

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Count an epoch."""
        self.train_exp_epochs += 1

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Count an experience."""
        self.train_exp_counter += 1

    def after_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count an evaluation iteration."""
        self.total_iterations += 1


class PeriodicEval(BasePlugin):
    """Evaluates on ``eval_streams`` while training goes on.

    Args:
        eval_every: -1: never. 0: before training and after each experience. n > 0: also every n epochs (or
            iterations) of an experience; where an epoch's evaluation falls on its end, that is the one after it.
        peval_mode: What ``eval_every`` counts, ``"epoch"`` or ``"iteration"``.

    Raises:
        ValueError: ``eval_every`` below -1 or an unknown mode.
    """

    def __init__(self, eval_every: int, peval_mode: Literal["epoch", "iteration"]) -> None:
        if not isinstance(eval_every, int) or eval_every < -1:
            raise ValueError(f"eval_every={eval_every!r}: expected -1 (never), 0 (each experience) or a period")
        if peval_mode not in ("epoch", "iteration"):
            raise ValueError(f"peval_mode={peval_mode!r}: expected 'epoch' or 'iteration'")
        self.eval_every, self.peval_mode = eval_every, peval_mode
        self._final = False

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Evaluate what the model can do beforehand."""
        if self.eval_every >= 0 and not getattr(strategy, "resuming", False):
            strategy.evaluate_streams(**kwargs)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Find out whether the last epoch's evaluation will be the final one."""
        by_epochs = self.peval_mode == "epoch" and self.eval_every > 0
        self._final = self.eval_every >= 0 and not (by_epochs and self._due(strategy.train_epochs - 1))

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Evaluate if an epoch is due."""
        if self.peval_mode == "epoch" and self._due(strategy.clock.train_exp_epochs):
            strategy.evaluate_streams(**kwargs)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Evaluate if an iteration is due."""
        if self.peval_mode == "iteration" and self._due(strategy.clock.train_exp_iterations):
            strategy.evaluate_streams(**kwargs)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Evaluate at the end of the experience, unless that was just done."""
        if self._final:
            strategy.evaluate_streams(**kwargs)

    def _due(self, finished: int) -> bool:
        return self.eval_every > 0 and finished % self.eval_every == 0
