"""The training loop: epochs and iterations over mini-batches (see ``events`` for the moments at which plugins act)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from rwalk.models import ModelCall
from rwalk.streams import Experience, TensorData, task_label_of
from rwalk.streams.loader import Batches
from rwalk.training.adaptation import adapt_model
from rwalk.training.base import BaseTemplate
from rwalk.training.dispatch import ActingPlugins

__all__ = ["Naive", "SupervisedTemplate"]


class SupervisedTemplate(BaseTemplate):
    """Supervised learning with mini-batches ``(x, y, task label)``.

    Args:
        model: Maps ``mb_x`` to ``mb_output``; a ``MultiTaskModule`` gets ``mb_task_id`` as well. Dynamic modules in it
            adapt to each experience before its first hook ``before_training_exp`` or ``before_eval_exp``.
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
        self.loss = self._no_loss = torch.zeros(())
        self._labels_checked = False
        self._call = ModelCall(self.model)

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
        """The model's output for the current batch; it sees task labels if it takes them."""
        if self._call.model is not self.model:
            self._call = ModelCall(self.model)
        return self._call(self.mb_x, self.mb_task_id)

    def criterion(self) -> Tensor:
        """The loss of the current batch."""
        return self._criterion(self.mb_output, self.mb_y)

    def model_adaptation(self) -> None:
        """Let the model's dynamic modules adapt to ``experience``; the optimizer follows."""
        if adapt_model(self.model, self.optimizer, self.experience):
            self.model = self.engine.renew(self.model)
        self._call = ModelCall(self.model)

    def training_epoch(self, **kwargs: Any) -> None:
        """One pass over ``dataloader``."""
        self._acting, self._no_loss = ActingPlugins(self.plugins), torch.zeros((), device=self.device)
        fire = self._fire_in_iteration
        for self.mbatch in self.dataloader:  # noqa: B020
            if self._stop_training:
                break
            self._begin_iteration()
            with self.engine.accumulate(self.model):
                fire("before_training_iteration", **kwargs)
                self.engine.zero_grad(self.optimizer)
                self._begin_loss()

                fire("before_forward", **kwargs)
                self.mb_output = self.forward()
                fire("after_forward", **kwargs)

                self._check_labels()
                self._add_criterion()
                fire("before_backward", **kwargs)
                self.engine.backward(self.loss)
                fire("after_backward", **kwargs)

                fire("before_update", **kwargs)
                self.engine.step(self.optimizer)
                fire("after_update", **kwargs)
                fire("after_training_iteration", **kwargs)

    def eval_epoch(self, **kwargs: Any) -> None:
        """One pass over ``dataloader`` without learning."""
        self._acting = ActingPlugins(self.plugins)
        fire = self._fire_in_iteration
        for self.mbatch in self.dataloader:  # noqa: B020
            self._begin_iteration()
            fire("before_eval_iteration", **kwargs)
            fire("before_eval_forward", **kwargs)
            self.mb_output = self.forward()
            fire("after_eval_forward", **kwargs)
            self._check_labels()
            self.loss = self.criterion()
            fire("after_eval_iteration", **kwargs)

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
        self.model_adaptation()
        self._labels_checked = False
        super()._before_training_exp(**kwargs)

    def _before_eval_exp(self, **kwargs: Any) -> None:
        self._fire("before_eval_dataset_adaptation", **kwargs)
        experience = cast("Experience", self.experience)
        self.adapted_dataset = _view(experience.dataset, "eval")
        self._fire("after_eval_dataset_adaptation", **kwargs)
        options = {"task_label": task_label_of(experience), **{k: kwargs[k] for k in ("num_workers",) if k in kwargs}}
        self.dataloader = self.engine.loader(self.adapted_dataset, self.eval_mb_size, shuffle=False, **options)
        self.model_adaptation()
        self._labels_checked = False
        super()._before_eval_exp(**kwargs)

    def _save_state(self) -> dict[str, Any]:
        names = ("adapted_dataset", "dataloader", "mbatch", "mb_output", "loss", "_labels_checked")
        return {**super()._save_state(), **{name: getattr(self, name) for name in names}}

    def _begin_iteration(self) -> None:
        super()._begin_iteration()
        here = self.device
        self.mbatch = [
            part if getattr(part, "device", None) == here else part.to(here, non_blocking=True) for part in self.mbatch
        ]

    def _begin_loss(self) -> None:
        """Zero, for plugins to add to; where none can, one zero that all iterations share."""
        if self._acting_now().on_loss:
            self.loss = torch.zeros((), device=self.device)
            return
        if self._no_loss._version:  # something other than a plugin has changed it in place
            self._no_loss = torch.zeros((), device=self.device)
        self.loss = self._no_loss

    def _add_criterion(self) -> None:
        """Where nothing was added before and no plugin will change it in place: the criterion itself, without a sum."""
        before, added = self.loss, self.criterion()
        untouched = before is self._no_loss and not before._version
        self.loss = added if untouched else before + added

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
