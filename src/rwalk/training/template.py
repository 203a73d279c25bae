"""The training loop: experiences, epochs, iterations, and the moments at which plugins act (see ``events``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from rwalk.streams import Experience, Stream, TensorData, task_label_of
from rwalk.streams.loader import Batches
from rwalk.training.clock import Clock, PeriodicEval
from rwalk.training.engine import AcceleratedEngine, PlainEngine
from rwalk.training.events import BasePlugin, check_hooks
from rwalk.training.plugins.evaluation import EvaluationPlugin

__all__ = ["BaseTemplate", "Naive", "SupervisedTemplate"]

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


class SupervisedTemplate(BaseTemplate):
    """Supervised learning with mini-batches ``(x, y, task label)``.

    Args:
        model: Maps ``mb_x`` to ``mb_output``.
        optimizer: What trains it.
        criterion: Loss of ``(mb_output, mb_y)``; cross-entropy if None.
        train_mb_size: Samples in a training batch (per process).
        train_epochs: Passes over each experience.
        eval_mb_size: Samples in an evaluation batch; ``train_mb_size`` if None.
        options: The rest is ``BaseTemplate``'s.

    Raises:
        ValueError: A batch size or the number of epochs is below 1.

    Attributes:
        adapted_dataset: The data trained or evaluated on; plugins may replace it.
        dataloader: Its batches; plugins may replace it.
        mbatch: The current batch, ``[x, y, task label]``; ``mb_x``, ``mb_y`` and ``mb_task_id`` are its parts.
        mb_output: What the model made of ``mb_x``.
        loss: Loss of the current batch, a scalar tensor.

    Example:
        >>> from rwalk.streams import benchmark
        >>> digits = benchmark("split-digits")
        >>> model = nn.Linear(64, 10)
        >>> strategy = Naive(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), train_mb_size=32)
        >>> for experience in digits.train_stream:
        ...     _ = strategy.train(experience)
        ...     metrics = strategy.eval(digits.test_stream)
        >>> 0.0 <= metrics["Top1_Acc_Stream/eval_phase/test_stream"] <= 1.0
        True
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        criterion: Callable[[Any, Any], Tensor] | None = None,
        train_mb_size: int = 1,
        train_epochs: int = 1,
        eval_mb_size: int | None = None,
        **options: Any,
    ) -> None:
        sizes = {"train_mb_size": train_mb_size, "train_epochs": train_epochs, "eval_mb_size": eval_mb_size}
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}={value!r}: expected at least 1")
        super().__init__(model=model, optimizer=optimizer, **options)
        self._criterion = criterion if criterion is not None else nn.CrossEntropyLoss()
        self.train_mb_size, self.train_epochs = train_mb_size, train_epochs
        self.eval_mb_size = train_mb_size if eval_mb_size is None else eval_mb_size
        self.adapted_dataset: Dataset[Any] | None = None
        self.dataloader: Batches | Sequence[Any] = ()
        self.mbatch: Any = None
        self.mb_output: Any = None
        self.loss = torch.zeros(())
        self._labels_checked = False

    @property
    def mb_x(self) -> Any:
        """Inputs of the current batch."""
        return self.mbatch[0]

    @property
    def mb_y(self) -> Any:
        """Targets of the current batch."""
        return self.mbatch[1]

    @property
    def mb_task_id(self) -> Any:
        """Task labels of the current batch."""
        return self.mbatch[-1]

    def forward(self) -> Any:
        """The model's output for the current batch."""
        return self.model(self.mb_x)

    def criterion(self) -> Tensor:
        """The loss of the current batch."""
        return self._criterion(self.mb_output, self.mb_y)

    def training_epoch(self, **kwargs: Any) -> None:
        """One pass over ``dataloader``."""
        for self.mbatch in self.dataloader:  # noqa: B020
            if self._stop_training:
                break
            self._to_device()
            with self.engine.accumulate(self.model):
                self._fire("before_training_iteration", **kwargs)
                self.engine.zero_grad(self.optimizer)
                self.loss = torch.zeros((), device=self.device)

                self._fire("before_forward", **kwargs)
                self.mb_output = self.forward()
                self._fire("after_forward", **kwargs)

                self._check_labels()
                self.loss = self.loss + self.criterion()
                self._fire("before_backward", **kwargs)
                self.engine.backward(self.loss)
                self._fire("after_backward", **kwargs)

                self._fire("before_update", **kwargs)
                self.engine.step(self.optimizer)
                self._fire("after_update", **kwargs)
                self._fire("after_training_iteration", **kwargs)

    def eval_epoch(self, **kwargs: Any) -> None:
        """One pass over ``dataloader`` without learning."""
        for self.mbatch in self.dataloader:  # noqa: B020
            self._to_device()
            self._fire("before_eval_iteration", **kwargs)
            self._fire("before_eval_forward", **kwargs)
            self.mb_output = self.forward()
            self._fire("after_eval_forward", **kwargs)
            self._check_labels()
            self.loss = self.criterion()
            self._fire("after_eval_iteration", **kwargs)

    def _train_exp(self, **kwargs: Any) -> None:
        for _ in range(self.train_epochs):
            self._fire("before_training_epoch", **kwargs)
            if self._stop_training:
                break
            self.training_epoch(**kwargs)
            self._fire("after_training_epoch", **kwargs)
        self._stop_training = False

    def _eval_exp(self, **kwargs: Any) -> None:
        self.eval_epoch(**kwargs)

    def _before_training_exp(self, **kwargs: Any) -> None:
        self._fire("before_train_dataset_adaptation", **kwargs)
        experience = cast("Experience", self.experience)
        self.adapted_dataset = _view(experience.dataset, "train")
        self._fire("after_train_dataset_adaptation", **kwargs)
        options = {"shuffle": True, "task_label": task_label_of(experience)}
        options |= {k: kwargs[k] for k in ("num_workers", "shuffle", "drop_last") if k in kwargs}
        self.dataloader = self.engine.loader(self.adapted_dataset, self.train_mb_size, **options)
        self._labels_checked = False
        super()._before_training_exp(**kwargs)

    def _before_eval_exp(self, **kwargs: Any) -> None:
        self._fire("before_eval_dataset_adaptation", **kwargs)
        experience = cast("Experience", self.experience)
        self.adapted_dataset = _view(experience.dataset, "eval")
        self._fire("after_eval_dataset_adaptation", **kwargs)
        options = {"task_label": task_label_of(experience), **{k: kwargs[k] for k in ("num_workers",) if k in kwargs}}
        self.dataloader = self.engine.loader(self.adapted_dataset, self.eval_mb_size, shuffle=False, **options)
        self._labels_checked = False
        super()._before_eval_exp(**kwargs)

    def _save_state(self) -> dict[str, Any]:
        names = ("adapted_dataset", "dataloader", "mbatch", "mb_output", "loss", "_labels_checked")
        return {**super()._save_state(), **{name: getattr(self, name) for name in names}}

    def _to_device(self) -> None:
        self.mbatch = [part.to(self.device, non_blocking=True) for part in self.mbatch]

    def _check_labels(self) -> None:
        """Once an experience: a label that the model has no output for (data not in memory: in the first batch)."""
        if self._labels_checked or not isinstance(self._criterion, nn.CrossEntropyLoss):
            return
        self._labels_checked = True
        labels = self.adapted_dataset.targets if isinstance(self.adapted_dataset, TensorData) else self.mb_y
        outputs = self.mb_output.shape[1]
        if not labels.is_floating_point() and int(labels.max()) >= outputs:
            index = cast("Experience", self.experience).current_experience
            raise ValueError(
                f"experience {index} has label {int(labels.max())}, but the model has {outputs} outputs (labels 0 to "
                f"{outputs - 1}): relabel the data or widen the model"
            )


class Naive(SupervisedTemplate):
    """Fine-tuning: each experience is learned as it comes, and what is done against forgetting is up to plugins."""


def _view(dataset: Dataset[Any], phase: Literal["train", "eval"]) -> Dataset[Any]:
    """The dataset with its transforms for this phase, if it can tell them apart (Avalanche's can)."""
    view = getattr(dataset, phase, None)
    return cast("Dataset[Any]", view()) if callable(view) else dataset


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
