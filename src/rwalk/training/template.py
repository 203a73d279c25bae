"""The training loop: experiences, epochs, iterations (see ``events`` for the moments at which plugins act)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from rwalk.batches import (
    LABELS,
    checked_scores,
    detached,
    inputs_of,
    loss_of,
    targets_of,
    task_labels_of,
    to_device,
)
from rwalk.core.hooks import base_optimizer
from rwalk.models import ModelCall
from rwalk.models.following import follow_parameters, parameters_of
from rwalk.models.wrappers import unwrapped
from rwalk.module_state import in_eval_mode
from rwalk.streams import Benchmark, Experience, TensorData, task_label_of
from rwalk.streams.identity import by_stream
from rwalk.streams.loader import Batches
from rwalk.streams.passes import Pass
from rwalk.training.adaptation import adapt_model
from rwalk.training.clock import Clock, PeriodicEval
from rwalk.training.engine import AcceleratedEngine, PlainEngine
from rwalk.training.events import BasePlugin, check_hooks
from rwalk.training.labels import check_labels
from rwalk.training.moments import Moment
from rwalk.training.plugins.evaluation import EvaluationPlugin
from rwalk.training.rollback import all_or_nothing

__all__ = ["BaseTemplate", "Naive", "SupervisedTemplate"]

Experiences = Experience | Iterable[Experience]

#: What of the arguments of ``train`` and ``eval`` reaches the data loader.
LOADER_OPTIONS = ("num_workers", "shuffle", "drop_last", "collate_fn")

#: What an evaluation inside training puts back, and what a copy of a strategy begins without.
OF_THE_MOMENT: dict[str, Any] = {
    "experience": None,
    "is_training": False,
    "current_eval_stream": (),
    "adapted_dataset": None,
    "dataloader": (),
    "mbatch": None,
    "mb_output": None,
    "loss": torch.zeros(()),
    "_labels_checked": False,
    "_pass": None,
}


class SupervisedTemplate:
    """Supervised learning with mini-batches, one experience after the other.

    A batch is a sequence ``[x, y, task label]``, whose parts may be nested, or a mapping as Hugging Face's collators
    make them, with ``labels`` and perhaps ``task_labels`` among the model's inputs.

    Args:
        model: Maps ``mb_x`` to ``mb_output``; of a mapping, its entries by name. A ``MultiTaskModule`` gets
            ``mb_task_id`` as well. Dynamic modules in it adapt to each experience before its first hook
            ``before_training_exp`` or ``before_eval_exp``.
        optimizer: What trains it.
        criterion: Loss of ``(mb_output, mb_y)``, for any task: its mean over samples. If None, the one that the model
            computes by itself (a mapping's ``labels`` reach a model that takes them), else cross-entropy of its scores:
            the output, its ``logits``, or the first of several. They are also what plugins and metrics look at.
        train_mb_size: Samples in a training batch (per process).
        train_epochs: Passes over each experience.
        eval_mb_size: Samples in an evaluation batch; ``train_mb_size`` if None.
        collate_fn: Makes a batch of a list of samples; torch's own if None.
        device: Where to. Ignored with ``accelerator``, which brings its own.
        plugins: Called in this order at every hook.
        evaluator: Collects metrics, or a function that makes what does; a quiet ``EvaluationPlugin`` if None.
        eval_every: See ``PeriodicEval``; -1 never evaluates during training.
        peval_mode: See ``PeriodicEval``.
        accelerator: An ``accelerate.Accelerator``, for mixed precision, gradient accumulation and several processes.

    Raises:
        TypeError: A plugin has a method that looks like a hook and is none.
        ValueError: A batch size or the number of epochs is below 1; ``eval_every`` or ``peval_mode`` is out of range.

    Attributes:
        experience: The current experience, or None.
        is_training: Whether ``train`` is running (and not an evaluation inside it).
        clock: Counters of training events.
        adapted_dataset: The data trained or evaluated on; plugins may replace it.
        dataloader: Its batches; plugins may replace it.
        mbatch: The current batch; ``mb_x``, ``mb_y`` and ``mb_task_id`` are its parts.
        mb_output: What the model made of ``mb_x``.
        loss: Loss of the current batch, a scalar tensor.

    Copies (``copy.deepcopy``, ``pickle``) may be made at any time, in a hook too. A copy holds all that was learned and
    is not in the midst of anything: it has no data, no batch and no graph.

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

    PLUGIN_CLASS = BasePlugin

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        criterion: Callable[[Any, Any], Tensor] | None = None,
        train_mb_size: int = 1,
        train_epochs: int = 1,
        eval_mb_size: int | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        device: torch.device | str = "cpu",
        plugins: Sequence[Any] | None = None,
        evaluator: EvaluationPlugin | Callable[[], EvaluationPlugin] | None = None,
        eval_every: int = -1,
        peval_mode: Literal["epoch", "iteration"] = "epoch",
        accelerator: Any = None,
    ) -> None:
        sizes = {"train_mb_size": train_mb_size, "train_epochs": train_epochs, "eval_mb_size": eval_mb_size}
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}={value!r}: expected at least 1")
        self.train_mb_size, self.train_epochs = train_mb_size, train_epochs
        self.eval_mb_size = train_mb_size if eval_mb_size is None else eval_mb_size
        self.engine = PlainEngine(device) if accelerator is None else AcceleratedEngine(accelerator)
        self.device = self.engine.device
        self.model, self.optimizer = self.engine.prepare(model, optimizer)
        self._criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        self._takes_models_loss = criterion is None
        self.collate_fn = collate_fn
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
        self.adapted_dataset: Dataset[Any] | None = None
        self.dataloader: Batches | Sequence[Any] = ()
        self.mbatch: Any = None
        self.mb_output: Any = None
        self.loss = torch.zeros(())
        self._call = ModelCall(self.model)
        self._labels_checked = self._stop_training = False
        self._eval_streams: list[list[Experience]] = []
        self._when_trained: list[Callable[[Any], None]] = []
        self._between_batches: list[Callable[[Any], None]] = []
        self._pass: Pass | None = None
        self._moment: Moment | None = None
        self._learned_in_call = 0

    # --- what is called -----------------------------------------------------------------------------------------------

    def train(
        self, experiences: Experiences, eval_streams: Sequence[Experiences] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Learn experiences in order.

        Args:
            experiences: One, or several.
            eval_streams: What to evaluate on while training, if ``eval_every`` says so; the training experiences
                themselves if None.
            kwargs: Passed to every hook; ``num_workers``, ``shuffle``, ``drop_last``, ``collate_fn`` also reach the
                data loader.

        Returns:
            The last value of every metric.

        Raises:
            ValueError: Two evaluation streams have the same name.
            TypeError: Something else than experiences, such as a dataset. Nothing has changed then.
        """
        chosen = _as_list(experiences)
        given = [chosen] if eval_streams is None else [_as_list(stream) for stream in eval_streams]
        self._eval_streams = by_stream([experience for stream in given for experience in stream])
        self.is_training, self._stop_training = True, False
        self.model.train()
        self.model.to(self.device)
        try:
            self._fire("before_training", **kwargs)
            learned = 0 if self._moment is None else self._moment.learned_in_call
            for self._learned_in_call, self.experience in list(enumerate(chosen))[learned:]:
                self._train_exp(**kwargs)
            self._fire("after_training", **kwargs)
        finally:
            self.is_training, self.experience, self._stop_training = False, None, False
            self._pass = self._moment = None
            self._between_batches.clear()
            self.loss, self.mb_output = self.loss.detach(), detached(self.mb_output)
        return dict(self.evaluator.get_last_metrics())

    @torch.no_grad()
    def eval(self, experiences: Experiences, **kwargs: Any) -> dict[str, Any]:
        """Measure on experiences, changing nothing: a training that is interrupted goes on as it was.

        Args:
            experiences: One, or several.
            kwargs: Passed to every hook; ``num_workers`` and ``collate_fn`` also reach the data loader.

        Returns:
            The last value of every metric.

        Raises:
            TypeError: Something else than experiences, such as a dataset.
        """
        chosen = _as_list(experiences)
        before = {name: getattr(self, name) for name in OF_THE_MOMENT}
        self.is_training = False
        self.model.to(self.device)
        self.current_eval_stream = chosen
        try:
            with in_eval_mode(self.model):
                self._fire("before_eval", **kwargs)
                for self.experience in self.current_eval_stream:  # noqa: B020
                    self._eval_exp(**kwargs)
                self._fire("after_eval", **kwargs)
        finally:
            vars(self).update(before)
        return dict(self.evaluator.get_last_metrics())

    def evaluate_streams(self, **kwargs: Any) -> None:
        """Evaluate on each of the streams given to ``train``."""
        for stream in self._eval_streams:
            self.eval(stream, **kwargs)

    def stop_training(self) -> None:
        """End the current experience before its next iteration or epoch."""
        self._stop_training = True

    def when_trained(self, act: Callable[[Any], None]) -> None:
        """Have ``act(strategy)`` called once the current experience's epochs are over.

        That is before any plugin's ``after_training_exp``, at which the weights are final: for whoever replaces them.
        """
        self._when_trained.append(act)

    def between_batches(self, act: Callable[[Any], None]) -> None:
        """Have ``act(strategy)`` called after each training batch, until ``train`` returns.

        That is when every plugin has had its ``after_training_iteration``: the strategy is at rest, and all that it
        needs to go on from there can be kept (see ``rwalk.training.moments``).
        """
        self._between_batches.append(act)

    @property
    def resuming(self) -> bool:
        """Whether training is about to go on in the midst of an experience: what hooks do until then is put right."""
        return self._moment is not None

    # --- an experience ------------------------------------------------------------------------------------------------

    def _train_exp(self, **kwargs: Any) -> None:
        options = {name: value for name, value in kwargs.items() if name in LOADER_OPTIONS}
        self.engine.begin(self.optimizer)
        self._when_trained.clear()
        self._prepare_exp("train", self.train_mb_size, {"shuffle": True, **options}, **kwargs)
        self._fire("before_training_exp", **kwargs)
        for epoch in range(self.train_epochs):
            if self._moment is not None and epoch < self._moment.epoch:
                continue
            self._fire("before_training_epoch", **kwargs)
            if self._moment is not None:
                self._moment.put_back(self)
                self._moment = None
            if self._stop_training:
                break
            self.training_epoch(**kwargs)
            self._fire("after_training_epoch", **kwargs)
        self._stop_training = False
        for act in self._when_trained:
            act(self)
        self._fire("after_training_exp", **kwargs)

    def _eval_exp(self, **kwargs: Any) -> None:
        options = {name: value for name, value in kwargs.items() if name in LOADER_OPTIONS}
        options |= {"shuffle": False, "drop_last": False}
        self._prepare_exp("eval", self.eval_mb_size, options, **kwargs)
        self._fire("before_eval_exp", **kwargs)
        self.eval_epoch(**kwargs)
        self._fire("after_eval_exp", **kwargs)

    def _prepare_exp(
        self, phase: Literal["train", "eval"], batch_size: int, options: dict[str, Any], **kwargs: Any
    ) -> None:
        """Dataset, data loader and model for ``experience``."""
        self._fire(f"before_{phase}_dataset_adaptation", **kwargs)
        experience = cast("Experience", self.experience)
        self.adapted_dataset = _view(experience.dataset, phase)
        self._fire(f"after_{phase}_dataset_adaptation", **kwargs)
        options["task_label"] = task_label_of(experience)
        if self.collate_fn is not None:
            options.setdefault("collate_fn", self.collate_fn)
        self.dataloader = self.engine.loader(self.adapted_dataset, batch_size, **options)
        self.model_adaptation()
        self._labels_checked = False

    def model_adaptation(self) -> None:
        """Let the model's dynamic modules adapt to ``experience``; the optimizer follows."""
        if adapt_model(self.model, self.optimizer, self.experience):
            self.model = self.engine.renew(self.model)
        self._call = ModelCall(self.model)

    # --- an iteration -------------------------------------------------------------------------------------------------

    def training_epoch(self, **kwargs: Any) -> None:
        """One pass over ``dataloader``."""
        fire = self._fire
        self._pass = Pass(self.dataloader) if self._pass is None else self._pass
        for batch in self._pass:
            if self._stop_training:
                break
            self.mbatch = to_device(batch, self.device)
            with self.engine.accumulate(self.model):
                fire("before_training_iteration", **kwargs)
                self.engine.zero_grad(self.optimizer)
                self.loss = torch.zeros((), device=self.device)

                fire("before_forward", **kwargs)
                self.mb_output = self.forward()
                fire("after_forward", **kwargs)

                criterion = self.criterion()
                self.loss = self.loss.to(criterion.dtype) + criterion
                fire("before_backward", **kwargs)
                self.engine.backward(self.loss)
                fire("after_backward", **kwargs)

                fire("before_update", **kwargs)
                self.engine.step(self.optimizer)
                fire("after_update", **kwargs)
                fire("after_training_iteration", **kwargs)
            for act in self._between_batches:
                act(self)
        self._pass = None

    def eval_epoch(self, **kwargs: Any) -> None:
        """One pass over ``dataloader`` without learning."""
        fire = self._fire
        for batch in self.dataloader:
            self.mbatch = to_device(batch, self.device)
            fire("before_eval_iteration", **kwargs)
            fire("before_eval_forward", **kwargs)
            self.mb_output = self.forward()
            fire("after_eval_forward", **kwargs)
            self.loss = self.criterion()
            fire("after_eval_iteration", **kwargs)

    @property
    def mb_x(self) -> Any:
        """Inputs of the current batch."""
        return inputs_of(self.mbatch)

    @property
    def mb_y(self) -> Any:
        """Targets of the current batch."""
        return targets_of(self.mbatch)

    @property
    def mb_task_id(self) -> Any:
        """Task labels of the current batch."""
        return task_labels_of(self.mbatch, task_label_of(self.experience))

    def forward(self) -> Any:
        """The model's output for the current batch; it sees task labels, and a mapping's labels, if it takes them."""
        if self._call.model is not self.model:
            self._call = ModelCall(self.model)
        if not isinstance(self.mbatch, Mapping):
            return self._call(self.mb_x, self.mb_task_id)
        told = self._takes_models_loss and self.mb_y is not None and self._call.takes(LABELS)
        return self._call({**self.mb_x, LABELS: self.mb_y} if told else self.mb_x, self.mb_task_id)

    @property
    def has_its_own_loss(self) -> bool:
        """Whether the loss of the current batch is the one that the model has computed by itself."""
        return self._takes_models_loss and loss_of(self.mb_output) is not None

    def criterion(self) -> Tensor:
        """The loss of the current batch.

        Raises:
            ValueError: Cross-entropy of a batch without labels, or of a label that the model has no output for.
            TypeError: Cross-entropy of an output that holds no scores.
        """
        if self.has_its_own_loss:
            return cast("Tensor", loss_of(self.mb_output))
        output = checked_scores(self.mb_output, "cross-entropy") if self._takes_models_loss else self.mb_output
        self._check_labels(output)
        return self._criterion(output, self.mb_y)

    def _check_labels(self, scores: Any) -> None:
        """Once an experience: labels that are not there, or that the model has no output for.

        Of data that is not in memory, in the first batch.
        """
        if self._labels_checked or not isinstance(self._criterion, nn.CrossEntropyLoss):
            return
        self._labels_checked = True
        labels = self.adapted_dataset.targets if isinstance(self.adapted_dataset, TensorData) else self.mb_y
        check_labels(
            labels, scores, ignored=self._criterion.ignore_index, batch=self.mbatch,
            experience=cast("Experience", self.experience).current_experience,
        )  # fmt: skip

    # --- its plugins and its state ------------------------------------------------------------------------------------

    @property
    def is_eval(self) -> bool:
        """Whether an evaluation is running, or nothing."""
        return not self.is_training

    def _fire(self, event: str, **kwargs: Any) -> None:
        for plugin in tuple(self.plugins):  # which a hook may change
            hook = getattr(plugin, event, None)
            if hook is not None:
                hook(self, **kwargs)

    def state_dict(self) -> dict[str, Any]:
        """What was learned, counted and measured: of the model, the optimizer, and each plugin that keeps something.

        Take it between experiences. It holds tensors, numbers and strings only, so that ``torch.load`` reads it with
        ``weights_only=True``.
        """
        states = {name: plugin.state_dict() for name, plugin in self._stateful().items()}
        return {
            "model": unwrapped(self.model).state_dict(),
            "optimizer": base_optimizer(self.optimizer).state_dict(),
            "plugins": {name: state for name, state in states.items() if state},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict``, in a strategy of like model, optimizer and plugins.

        A state that is refused, by whatever part of the strategy, changes nothing: model, optimizer and plugins are
        what they were. A copy of the model and of the plugins' states is kept meanwhile.

        Raises:
            ValueError: There is a plugin's state and no such plugin in its place, or a plugin refuses its state.
                Nothing has changed then, nor after any other error.
        """
        plugins, states = self._stateful(), state_dict["plugins"]
        missing = [name for name in states if name not in plugins]
        if missing:
            raise ValueError(f"a state of plugin {missing[0]!r}, but the plugins are {list(plugins)}")
        before = parameters_of(self.model)
        with all_or_nothing(self):
            unwrapped(self.model).load_state_dict(state_dict["model"])
            if follow_parameters(base_optimizer(self.optimizer), before, self.model):  # output layers grow in loading
                self.model = self.engine.renew(self.model)
            base_optimizer(self.optimizer).load_state_dict(state_dict["optimizer"])
            for name, state in states.items():
                plugins[name].load_state_dict(state)

    def _stateful(self) -> dict[str, Any]:
        """Plugins that can keep something, by place and class."""
        return {
            f"{place}:{type(plugin).__name__}": plugin
            for place, plugin in enumerate(self.plugins)
            if hasattr(plugin, "state_dict")
        }

    def __getstate__(self) -> dict[str, Any]:
        """A copy is at rest."""
        lists = ("_eval_streams", "_when_trained", "_between_batches")
        at_rest: dict[str, Any] = {**OF_THE_MOMENT, "_stop_training": False, "_moment": None, "_learned_in_call": 0}
        return {**vars(self), **at_rest, **{name: [] for name in lists}, "loss": self.loss.detach().clone()}


#: The name that the protocol has for it.
BaseTemplate = SupervisedTemplate


class Naive(SupervisedTemplate):
    """Fine-tuning: each experience is learned as it comes, and what is done against forgetting is up to plugins."""


def _as_list(experiences: Experiences) -> list[Experience]:
    chosen = []
    for experience in experiences if isinstance(experiences, Iterable) else [experiences]:
        if not (hasattr(experience, "dataset") and hasattr(experience, "origin_stream")):
            held = "" if experience is experiences else f" of {type(experience).__name__}"
            way = (
                "give its train_stream or test_stream"
                if isinstance(experiences, Benchmark)
                else "make a stream of datasets, as in Stream('train', [dataset]), and give it, or an experience of it"
            )
            raise TypeError(f"a {type(experiences).__name__}{held}: expected an experience, or several; {way}")
        chosen.append(experience)
    return chosen


def _view(dataset: Dataset[Any], phase: Literal["train", "eval"]) -> Dataset[Any]:
    """The dataset with its transforms for this phase, if it can tell them apart (Avalanche's can)."""
    view = getattr(dataset, phase, None)
    return cast("Dataset[Any]", view()) if callable(view) else dataset
