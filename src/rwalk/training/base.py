"""What all templates share: experiences in order, evaluation in between, and the moments at which plugins act."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from rwalk.streams import Experience, Stream
from rwalk.training.clock import Clock, PeriodicEval
from rwalk.training.dispatch import ActingPlugins
from rwalk.training.engine import AcceleratedEngine, PlainEngine
from rwalk.training.events import BasePlugin, check_hooks
from rwalk.training.plugins.evaluation import EvaluationPlugin

__all__ = ["BaseTemplate"]

Experiences = Experience | Iterable[Experience]


class BaseTemplate:
    """Goes through experiences; what happens inside one is a subclass's matter.

    Args:
        model: What is trained.
        optimizer: What trains it.
        device: Where to. Ignored with ``accelerator``, which brings its own.
        plugins: Called in this order at every hook.
        evaluator: Collects metrics, or a function that makes what does; a quiet ``EvaluationPlugin`` if None.
        eval_every: See ``PeriodicEval``; -1 never evaluates during training.
        peval_mode: See ``PeriodicEval``.
        accelerator: An ``accelerate.Accelerator``, for mixed precision, gradient accumulation and several processes.

    Raises:
        TypeError: A plugin has a method that looks like a hook and is none.
        ValueError: ``eval_every`` or ``peval_mode`` is out of range.

    Attributes:
        experience: The current experience, or None.
        is_training: Whether ``train`` is running (and not an evaluation inside it).
        clock: Counters of training events.
    """

    PLUGIN_CLASS = BasePlugin

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        device: torch.device | str = "cpu",
        plugins: Sequence[Any] | None = None,
        evaluator: EvaluationPlugin | Callable[[], EvaluationPlugin] | None = None,
        eval_every: int = -1,
        peval_mode: Literal["epoch", "iteration"] = "epoch",
        accelerator: Any = None,
    ) -> None:
        self.engine = PlainEngine(device) if accelerator is None else AcceleratedEngine(accelerator)
        self.device = self.engine.device
        self.model, self.optimizer = self.engine.prepare(model, optimizer)
        built = EvaluationPlugin() if evaluator is None else evaluator
        self.evaluator: Any = built if hasattr(built, "get_last_metrics") or not callable(built) else built()
        self.clock = Clock()
        self.plugins: list[Any] = [*(plugins or ()), self.evaluator, PeriodicEval(eval_every, peval_mode), self.clock]
        for plugin in self.plugins:
            if not isinstance(plugin, BasePlugin):
                check_hooks(type(plugin).__name__, dir(plugin))
        self._acting = ActingPlugins(self.plugins)
        self.experience: Experience | None = None
        self.is_training = False
        self.current_eval_stream: Sequence[Experience] = ()
        self._eval_streams: list[list[Experience]] = []
        self._stop_training = False

    @property
    def is_eval(self) -> bool:
        """Whether an evaluation is running, or nothing."""
        return not self.is_training

    def train(
        self, experiences: Experiences, eval_streams: Sequence[Experiences] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Learn experiences in order.

        Args:
            experiences: One, or several.
            eval_streams: What to evaluate on while training, if ``eval_every`` says so; the training experiences
                themselves if None.
            kwargs: Passed to every hook; ``num_workers``, ``shuffle``, ``drop_last`` also reach the data loader.

        Returns:
            The last value of every metric.
        """
        chosen = _as_list(experiences)
        self.is_training, self._stop_training = True, False
        self.model.train()
        self.model.to(self.device)
        self._eval_streams = _by_stream([chosen] if eval_streams is None else eval_streams)
        self._fire("before_training", **kwargs)
        for self.experience in chosen:
            self._before_training_exp(**kwargs)
            self._train_exp(**kwargs)
            self._fire("after_training_exp", **kwargs)
        self._fire("after_training", **kwargs)
        self.experience = None
        return dict(self.evaluator.get_last_metrics())

    @torch.no_grad()
    def eval(self, experiences: Experiences, **kwargs: Any) -> dict[str, Any]:
        """Measure on experiences, changing nothing: a training that is interrupted goes on as it was.

        Args:
            experiences: One, or several.
            kwargs: Passed to every hook; ``num_workers`` also reaches the data loader.

        Returns:
            The last value of every metric.
        """
        before = self._save_state()
        modes = {module: module.training for module in self.model.modules()}
        self.is_training = False
        self.model.eval()
        self.model.to(self.device)
        self.current_eval_stream = _as_list(experiences)
        try:
            self._fire("before_eval", **kwargs)
            for self.experience in self.current_eval_stream:  # noqa: B020
                self._before_eval_exp(**kwargs)
                self._eval_exp(**kwargs)
                self._fire("after_eval_exp", **kwargs)
            self._fire("after_eval", **kwargs)
        finally:
            self.current_eval_stream = ()
            for module, mode in modes.items():
                module.training = mode
            for name, value in before.items():
                setattr(self, name, value)
        return dict(self.evaluator.get_last_metrics())

    def evaluate_streams(self, **kwargs: Any) -> None:
        """Evaluate on each of the streams given to ``train``."""
        for stream in self._eval_streams:
            self.eval(stream, **kwargs)

    def stop_training(self) -> None:
        """End the current experience before its next iteration or epoch."""
        self._stop_training = True

    def _fire(self, event: str, **kwargs: Any) -> None:
        for plugin in self.plugins:
            hook = getattr(plugin, event, None)
            if hook is not None:
                hook(self, **kwargs)

    def _fire_in_iteration(self, event: str, **kwargs: Any) -> None:
        """As ``_fire``, but past the plugins that did nothing at this hook when the iteration began."""
        for plugin in self._acting_now().at[event]:
            hook = getattr(plugin, event, None)
            if hook is not None:
                hook(self, **kwargs)

    def _acting_now(self) -> ActingPlugins:
        if self._acting.plugins != self.plugins:
            self._acting = ActingPlugins(self.plugins)
        return self._acting

    def _begin_iteration(self) -> None:
        if self._acting.outdated():
            self._acting = ActingPlugins(self.plugins)

    def _save_state(self) -> dict[str, Any]:
        return {"experience": self.experience, "is_training": self.is_training}

    def _before_training_exp(self, **kwargs: Any) -> None:
        self._fire("before_training_exp", **kwargs)

    def _before_eval_exp(self, **kwargs: Any) -> None:
        self._fire("before_eval_exp", **kwargs)

    def _train_exp(self, **kwargs: Any) -> None:
        raise NotImplementedError

    def _eval_exp(self, **kwargs: Any) -> None:
        raise NotImplementedError


def _as_list(experiences: Experiences) -> list[Experience]:
    return list(experiences) if isinstance(experiences, Iterable) else [experiences]


def _by_stream(streams: Sequence[Experiences]) -> list[list[Experience]]:
    """Flatten, then group by the stream that each experience comes from."""
    groups: dict[str, list[Experience]] = {}
    for entry in streams:
        for experience in _as_list(entry):
            origin: Stream = experience.origin_stream
            groups.setdefault(origin.name, []).append(experience)
    return list(groups.values())
