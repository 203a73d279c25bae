"""Learning rates that change during an experience."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from rwalk.training.events import BasePlugin
from rwalk.training.running import RunningMean

__all__ = ["LRSchedulerPlugin"]


class LRSchedulerPlugin(BasePlugin):
    """Steps a torch scheduler, and starts it again with each experience.

    Args:
        scheduler: Any scheduler of ``torch.optim.lr_scheduler``.
        reset_scheduler: Put the scheduler and the learning rates back where they began when an experience ends.
        step_granularity: Step after each ``"epoch"`` or ``"iteration"``.
        metric: For ``ReduceLROnPlateau``: ``"train_loss"``, the mean since the last step, or ``"val_loss"``, that of
            the last evaluation during training (the strategy needs ``eval_every``).
        first_exp_only: Leave the learning rate alone after the first experience.

    Raises:
        ValueError: A metric is missing, unknown, or given to a scheduler that takes none.
    """

    supports_distributed = True

    def __init__(
        self,
        scheduler: LRScheduler,
        *,
        reset_scheduler: bool = True,
        step_granularity: Literal["epoch", "iteration"] = "epoch",
        metric: Literal["train_loss", "val_loss"] | None = None,
        first_exp_only: bool = False,
    ) -> None:
        if step_granularity not in ("epoch", "iteration"):
            raise ValueError(f"step_granularity={step_granularity!r}: expected 'epoch' or 'iteration'")
        if metric not in (None, "train_loss", "val_loss"):
            raise ValueError(f"metric={metric!r}: expected 'train_loss', 'val_loss' or None")
        if isinstance(scheduler, ReduceLROnPlateau) != (metric is not None):
            needs = "needs a" if metric is None else "takes no"
            raise ValueError(f"metric={metric!r}: {type(scheduler).__name__} {needs} metric")
        self.scheduler, self.metric, self.step_granularity = scheduler, metric, step_granularity
        self.reset_scheduler, self.first_exp_only = reset_scheduler, first_exp_only
        self._initial = deepcopy(scheduler.state_dict())
        self._initial_lrs = [group["lr"] for group in scheduler.optimizer.param_groups]
        self._loss = RunningMean()
        self._training = False

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Start measuring."""
        self._loss, self._training = RunningMean(), True

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count the loss; step if each iteration does."""
        if self.metric == "train_loss":
            self._loss.add_mean(strategy.loss)
        if self.step_granularity == "iteration" and self.metric != "val_loss":
            self._step(strategy)

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Step if each epoch does."""
        if self.step_granularity == "epoch" and self.metric != "val_loss":
            self._step(strategy)

    def after_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count the validation loss."""
        if self.metric == "val_loss" and self._training:
            self._loss.add_mean(strategy.loss)

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Step on the validation loss."""
        if self.metric == "val_loss" and self._training:
            self._step(strategy)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Back to the beginning."""
        self._training = False
        if self.reset_scheduler:
            self.scheduler.load_state_dict(deepcopy(self._initial))
            for group, lr in zip(self.scheduler.optimizer.param_groups, self._initial_lrs, strict=False):
                group["lr"] = lr

    def _step(self, strategy: Any) -> None:
        if not (self.first_exp_only and strategy.clock.train_exp_counter > 0):
            if self.metric is None:
                self.scheduler.step()
            elif self._loss.count:
                self.scheduler.step(float(self._loss))  # type: ignore[arg-type]
        self._loss = RunningMean()
