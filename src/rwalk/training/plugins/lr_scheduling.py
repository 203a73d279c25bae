"""Learning rates that change during an experience."""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import Any, Literal

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from rwalk.metrics.running import RunningMean
from rwalk.training.events import BasePlugin
from rwalk.training.plugins.evaluation import answers_of

__all__ = ["LRSchedulerPlugin"]


class LRSchedulerPlugin(BasePlugin):
    """Steps a torch scheduler, and starts it again with each experience.

    Args:
        scheduler: Any scheduler of ``torch.optim.lr_scheduler``.
        reset_scheduler: Put the scheduler, and all that it has moved in the optimizer (learning rates, momenta, betas),
            back where they began when an experience ends. Tensors are filled in place.
        step_granularity: Step after each ``"epoch"`` or ``"iteration"``.
        metric: For ``ReduceLROnPlateau``: ``"train_loss"``, the mean since the last step, or ``"val_loss"``, that of
            an evaluation during training (the strategy needs ``eval_every``). Both are weighted by samples.
        val_stream_name: Whose evaluations ``"val_loss"`` is; if None, the stream that is evaluated first.
        first_exp_only: Leave the learning rate alone after the first experience.

    Raises:
        ValueError: A metric is missing, unknown, or given to a scheduler that takes none; or, in training, the
            validation loss is not measured, or the strategy has another optimizer than the scheduler.
    """

    supports_distributed = True

    def __init__(
        self,
        scheduler: LRScheduler,
        *,
        reset_scheduler: bool = True,
        step_granularity: Literal["epoch", "iteration"] = "epoch",
        metric: Literal["train_loss", "val_loss"] | None = None,
        val_stream_name: str | None = None,
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
        self.val_stream_name = val_stream_name
        self._initial = deepcopy(scheduler.state_dict())
        self._settings = [_settings(group) for group in scheduler.optimizer.param_groups]
        self._moved: set[str] = set()
        self._loss = RunningMean()
        self._training = False
        self._series: str | None = None
        self._measured, self._others = False, list[str]()

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's state, and where it and the optimizer's settings began."""
        began = {"initial": self._initial, "settings": self._settings, "moved": sorted(self._moved)}
        return {"scheduler": self.scheduler.state_dict(), **deepcopy(began)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict``."""
        loaded = deepcopy(state_dict)
        self.scheduler.load_state_dict(loaded["scheduler"])
        self._initial, self._settings, self._moved = loaded["initial"], loaded["settings"], set(loaded["moved"])

    def moment_dict(self, strategy: Any) -> dict[str, Any]:
        """What was measured since the last step."""
        told = {"training": self._training, "series": self._series, "measured": self._measured}
        return {"loss": self._loss.state_dict(), **told}

    def load_moment_dict(self, strategy: Any, moment: dict[str, Any]) -> None:
        """Go on measuring."""
        self._loss, self._training, self._series = RunningMean(), bool(moment["training"]), moment["series"]
        self._loss.load_state_dict(moment["loss"])
        self._measured = bool(moment.get("measured", True))

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Start measuring; from the beginning also after a training that was broken off."""
        self._check_optimizer(strategy)
        if self._training:
            self._reset()
        self._loss, self._training, self._series = RunningMean(), True, self.val_stream_name
        self._measured, self._others = False, []

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """By now the validation loss has been measured, if it ever is."""
        self._check_measured(strategy)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count the loss; step if each iteration does."""
        if self.metric == "train_loss":
            self._count(strategy)
        if self.step_granularity == "iteration" and self.metric != "val_loss":
            self._step(strategy)

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        """Step if each epoch does."""
        if self.step_granularity == "epoch" and self.metric != "val_loss":
            self._step(strategy)

    def after_eval_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count the validation loss."""
        if self._judges(strategy):
            self._count(strategy)

    def after_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Step on the validation loss."""
        if self._judges(strategy):
            self._step(strategy)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Back to the beginning."""
        self._training = False
        self._reset()
        self._check_measured(strategy)

    def _judges(self, strategy: Any) -> bool:
        """Whether what is evaluated is the series by which a plateau is told."""
        if self.metric != "val_loss" or not self._training or not strategy.current_eval_stream:
            return False
        name: str = strategy.current_eval_stream[0].origin_stream.name
        self._series = name if self._series is None else self._series
        if name != self._series and name not in self._others:
            self._others.append(name)
        return name == self._series

    def _check_measured(self, strategy: Any) -> None:
        """After an epoch there is a validation loss, or nothing would ever move the learning rate."""
        clock = strategy.clock
        idle = self.metric != "val_loss" or self._is_over(strategy)
        if idle or self._measured or not clock.train_exp_epochs:
            return
        stream = "" if self.val_stream_name is None else f" of stream {self.val_stream_name!r}"
        found = f" (evaluated: {', '.join(map(repr, self._others))})" if self._others else ""
        wanted = "" if self.val_stream_name is None else " of that name"
        raise ValueError(
            f"metric='val_loss'{stream} is not measured during training{found}: give the strategy eval_every=1 and "
            f"train() an evaluation stream{wanted}"
        )

    def _check_optimizer(self, strategy: Any) -> None:
        """What the scheduler moves is what trains, be it wrapped."""
        moved, trains = self.scheduler.optimizer, strategy.optimizer
        if self._is_over(strategy) or any(
            group is other for group in moved.param_groups for other in trains.param_groups
        ):
            return
        raise ValueError(
            f"LRSchedulerPlugin's {type(self.scheduler).__name__} moves an optimizer, {type(moved).__name__}, that is "
            f"not the strategy's, {type(trains).__name__}: make a scheduler of the new optimizer, and put "
            "LRSchedulerPlugin(scheduler) in this one's place in strategy.plugins"
        )

    def _is_over(self, strategy: Any) -> bool:
        """Whether the learning rate is left alone from here on."""
        return self.first_exp_only and bool(strategy.clock.train_exp_counter > 0)

    def _count(self, strategy: Any) -> None:
        batch, self._measured = answers_of(strategy), True
        self._loss.add_sum(batch.loss, batch.count)

    def _step(self, strategy: Any) -> None:
        if not self._is_over(strategy):
            self._check_optimizer(strategy)
            before = [_notes(group) for group in self.scheduler.optimizer.param_groups]
            with warnings.catch_warnings():
                # A copied optimizer lacks the mark by which torch sees that it steps first; in this loop it does.
                warnings.filterwarnings("ignore", message="Seems like `optimizer.step")
                if self.metric is None:
                    self.scheduler.step()
                elif self._loss.started:
                    gathered = strategy.engine.total if strategy.is_training else None
                    self.scheduler.step(self._loss.value(gathered))  # type: ignore[arg-type]
            for group, noted in zip(self.scheduler.optimizer.param_groups, before, strict=True):
                self._moved |= {name for name, note in _notes(group).items() if noted.get(name) != note}
        self._loss = RunningMean()

    def _reset(self) -> None:
        if not self.reset_scheduler:
            return
        self.scheduler.load_state_dict(deepcopy(self._initial))
        for group, settings in zip(self.scheduler.optimizer.param_groups, self._settings, strict=False):
            for name in self._moved & settings.keys():
                if isinstance(group[name], Tensor):
                    group[name].fill_(settings[name])
                else:
                    group[name] = settings[name]


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    """A copy of an optimizer's settings for a group of parameters."""
    return {name: deepcopy(value) for name, value in group.items() if name not in ("params", "param_names")}


def _notes(group: dict[str, Any]) -> dict[str, Any]:
    """What changes whenever a setting does, without reading a tensor."""
    return {
        name: (id(value), value._version) if isinstance(value, Tensor) else value
        for name, value in group.items()
        if name not in ("params", "param_names")
    }
