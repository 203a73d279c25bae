"""Hugging Face Trainer: a callback that keeps what earlier trainings taught. PEFT models need nothing beyond it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from rwalk.core import RWalk, RWalkConfig
from rwalk.core.files import load_state
from rwalk.core.first_protection import FirstProtection
from rwalk.core.likelihood import outputs_of
from rwalk.errors import MissingExtraError, RWalkError
from rwalk.integrations.lora_checks import is_peft
from rwalk.integrations.lora_names import AdaptersSeen, without_gone
from rwalk.integrations.trainer_base import HeldBase
from rwalk.integrations.trainer_checkpoints import checkpoint_of, named_to_resume, resumed_from, state_file
from rwalk.integrations.trainer_steps import StepWatch, shows_averages, where_steps_led
from rwalk.integrations.walk_end import WalkEnd

try:
    from accelerate import PartialState
    from accelerate.utils.deepspeed import DeepSpeedOptimizerWrapper
    from transformers import TrainerCallback
    from transformers.trainer_callback import CallbackHandler
    from transformers.trainer_utils import has_length

    from rwalk.integrations.trainer_ends import Ends, handler_that_calls
except ImportError as error:
    raise MissingExtraError("RWalkTrainerCallback", "transformers", error) from error

__all__ = ["RWalkTrainerCallback"]


class RWalkTrainerCallback(TrainerCallback):
    """Protects what past tasks taught, in ``transformers.Trainer`` and its subclasses.

    It attaches to the Trainer's optimizer as training begins and lets go as it ends. Give the *same object* to the
    Trainer of the next task, or its saved state to a new one. Trainer's checkpoints carry the state.

    Args:
        config: Settings; ``RWalkConfig()``, or with ``start_from`` the saved ones, if None.
        consolidate_on: When a task ends: ``"train_end"``, when ``train()`` does (once the best model is loaded back,
            and after all other callbacks: weights that one of them averages are the anchor);
            ``"epoch_end"``, or at a best model of mid-epoch that is loaded back; every so many optimizer steps of a
            ``train()`` call; or None, when you say ``callback.rwalk.consolidate()``.
        start_from: An rwalk state file, or a checkpoint folder that holds one, to go on from in a first ``train()``.
        log: Add ``rwalk.report().metrics()`` to what Trainer logs, for all its reporters (``report_to``); each time,
            this waits for the device.
        protect: What the model knows already: a dataset like ``train_dataset`` (a list holds samples), or a
            ``DataLoader``. When the first ``train()``
            begins, ``RWalk.protect`` protects the model as it stands; ``combine="replace"`` becomes ``"sum"``, so that
            this is kept. A state that is loaded has it already.
        protect_options: Keyword arguments of ``RWalk.protect``.
        base_lambda: Where the model has PEFT's adapters, ``protect`` is for its frozen base: a ``BaseProtection`` of
            this strength holds it (``callback.base.protection``). Its importances have mean 1.

    Raises:
        ValueError: ``consolidate_on`` is none of these, or an option that ``RWalk.protect`` does not have.
        TypeError: ``protect`` is a single batch, or an iterator (a generator).
        RWalkError: In ``train()``: DeepSpeed, a hyperparameter search, a second RWalk on the optimizer, a model that
            lacks parameters whose importances are kept, a resumed checkpoint without a state, an unseen step.

    Attributes:
        rwalk: The core; None until training begins.

    Example:
        >>> callback = RWalkTrainerCallback(RWalkConfig(ewc_lambda=10.0))
        >>> for task in ():  # your datasets
        ...     Trainer(model, args, train_dataset=task, callbacks=[callback]).train()
    """

    def __init__(
        self,
        config: RWalkConfig | None = None,
        *,
        consolidate_on: Literal["train_end", "epoch_end"] | int | None = "train_end",
        start_from: str | Path | None = None,
        log: bool = False,
        protect: Any = None,
        protect_options: Mapping[str, Any] | None = None,
        base_lambda: float = 0.01,
    ) -> None:
        is_count = isinstance(consolidate_on, int) and not isinstance(consolidate_on, bool) and consolidate_on >= 1
        if not is_count and consolidate_on not in ("train_end", "epoch_end", None):
            raise ValueError(
                f"consolidate_on={consolidate_on!r}: expected 'train_end', 'epoch_end', a number of steps ≥ 1 or None"
            )
        if isinstance(protect, Iterator):
            raise TypeError(
                f"protect is a {type(protect).__name__}, which can be read only once, and does not tell samples from "
                "batches: expected a dataset like train_dataset, or a DataLoader; samples are list(...) of it"
            )
        self._protect = FirstProtection(protect, protect_options)
        self.config = self._protect.keeps(config) if start_from is None else config
        self.consolidate_on, self.start_from = consolidate_on, start_from
        self.log, self.base = log, HeldBase(base_lambda)
        self.rwalk: RWalk | None = None
        self._watch: StepWatch | None = None
        self._adapters = AdaptersSeen()
        self._ends: Ends | None = None
        self._walk_end: WalkEnd | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Follow this training's model and optimizer; if it is resumed, from its checkpoint's state."""
        _refuse_what_cannot_work(state, kwargs["optimizer"])
        if self.rwalk is not None and (self.rwalk.attached or self._ends):  # an earlier training was interrupted
            self._let_go(self.rwalk)
        source = None
        if state.global_step:
            source = resumed_from(args, state, named_to_resume(), self.start_from)
        elif self.rwalk is None and self.start_from is not None:
            source = Path(self.start_from)
        is_new = self.rwalk is None and source is None
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        rwalk = self._follow(model, optimizer, source)
        if isinstance(self.consolidate_on, int) and rwalk.config.fisher_source != "step":
            raise RWalkError(
                f"consolidate_on={self.consolidate_on}: fisher_source={rwalk.config.fisher_source!r} needs a task's "
                "data at its end, and of a number of steps it is not known: take 'train_end' or 'epoch_end'"
            )
        self.base.follow(model, optimizer, source)
        if is_new and self._protect.data is not None:
            self._protect.data = _of_the_model(self._protect.data, rwalk.model, args)
            how = {
                "batch_size": args.per_device_train_batch_size,
                "collate_fn": getattr(kwargs.get("train_dataloader"), "collate_fn", None),
                "lists_hold_samples": True,
            }
            if is_peft(model):
                self.base.protect(model, optimizer, self._protect, **how)
            else:
                self._protect([rwalk], **how)
        if source is not None and self.consolidate_on == "epoch_end" and _has_ended(state.epoch) and rwalk.task_steps:
            self._end_task(args, state, kwargs)  # saved before Trainer told of the epoch's end, and it will not again
        rwalk.attach()
        self.base.attach()
        self._watch = StepWatch(rwalk)
        handler = handler_that_calls(self)
        if handler is not None:
            if self.log:
                _put_before_reporters(self, handler)
            self._ends = Ends(handler, self, self._end_walk, self._end_training)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Be ready to notice a step that RWalk cannot see."""
        if self._watch is not None:
            self._watch.begin()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Notice a step that RWalk did not see. Under a GradScaler it may have been skipped."""
        if self._watch is not None and getattr(kwargs["optimizer"], "scaler", None) is None:
            self._watch.check(state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End a task, if a task is a number of steps. This step's checkpoint is saved afterwards."""
        if isinstance(self.consolidate_on, int) and state.global_step % self.consolidate_on == 0:
            self._end_task(args, state, kwargs)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End a task, if a task is an epoch. This epoch's checkpoint is saved afterwards, if epochs are saved."""
        if self.consolidate_on == "epoch_end":
            self._end_task(args, state, kwargs)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the state into the checkpoint that was just written."""
        file = state_file(checkpoint_of(args, state))
        if args.should_save:
            file.parent.mkdir(exist_ok=True)
        if args.should_save:
            self.base.save(file)
        with where_steps_led(self._core.optimizer):
            self._core.save(file)  # in every process: shards are put together, and the first one writes
        PartialState().wait_for_everyone()  # another process may be about to read it, beside the best model

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add RWalk's figures to the entry just logged, before reporters read it."""
        if self.log and self.rwalk is not None and self.rwalk.attached:
            with where_steps_led(self.rwalk.optimizer):
                figures = self.rwalk.report().metrics()
            kwargs["logs"].update(figures)
            state.log_history[-1].update(figures)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the task and let go, where Trainer's list of callbacks is not known; else after all other callbacks."""
        if self._ends is None:
            self._end_walk(args, state, kwargs)
            self._end_training(args, state, kwargs)

    def _end_walk(self, args: Any, state: Any, kwargs: Mapping[str, Any]) -> None:
        """Bring the last step in. If the best model was loaded back, so is the state beside it."""
        rwalk = self._core
        best = args.load_best_model_at_end and state.best_model_checkpoint is not None
        if best:
            rwalk.load_state_dict(load_state(state_file(Path(state.best_model_checkpoint))))
        elif self.consolidate_on == "train_end" and shows_averages(rwalk.optimizer):
            with where_steps_led(rwalk.optimizer):  # the averages that are left are the anchor, and no walk
                rwalk.end_window()
        with where_steps_led(rwalk.optimizer):
            rwalk.settle()
        if self.consolidate_on == "train_end" or (best and self.consolidate_on == "epoch_end" and rwalk.task_steps):
            self._walk_end = WalkEnd([rwalk], rwalk.model)

    def _end_training(self, args: Any, state: Any, kwargs: Mapping[str, Any]) -> None:
        """End the task at the weights that the other callbacks have left, and let go of the optimizer."""
        rwalk = self._core
        try:
            if self._walk_end is not None:
                self._walk_end.close()
                if rwalk.config.fisher_source == "step" and self._walk_end.is_rebuilt():
                    rwalk.detach()
                    rwalk.follow(self._walk_end.as_it_was())
                _consolidate(rwalk, args, state, kwargs)
        finally:
            self._let_go(rwalk)

    @property
    def _core(self) -> RWalk:
        if self.rwalk is None:
            raise RWalkError("no training has begun: give this callback to a Trainer and call its train()")
        return self.rwalk

    def _end_task(self, args: Any, state: Any, kwargs: Mapping[str, Any]) -> None:
        """Where training goes on afterwards: from where the steps have led, whatever an evaluation shows."""
        with where_steps_led(self._core.optimizer):
            _consolidate(self._core, args, state, kwargs)

    def _let_go(self, rwalk: RWalk) -> None:
        if self._watch is not None:
            self._watch.remove()
        if self._ends is not None:
            self._ends.remove()
        if self._walk_end is not None:
            self._walk_end.let_go()
        self._watch = self._ends = self._walk_end = None
        self.base.detach()
        if rwalk.attached:
            with where_steps_led(rwalk.optimizer):
                rwalk.detach()

    def _follow(self, model: nn.Module, optimizer: Optimizer, source: Path | None) -> RWalk:
        if self.rwalk is not None:
            self.rwalk.follow(model, optimizer)
            if source is not None:
                self.rwalk.load_state_dict(load_state(state_file(source)))
            else:
                self.rwalk = without_gone(self.rwalk, self._adapters.gone(model))
        elif source is not None:
            self.rwalk = RWalk.load(state_file(source), model, optimizer, self.config, attach=False)
        else:
            self.rwalk = RWalk(model, optimizer, self.config, attach=False)
        self._adapters.note(model)
        return self.rwalk


def _consolidate(rwalk: RWalk, args: Any, state: Any, kwargs: Mapping[str, Any]) -> None:
    if rwalk.config.fisher_source == "step":
        rwalk.consolidate()
        return
    data, model = kwargs["train_dataloader"], kwargs["model"]
    if not has_length(data):  # it may be endless
        data = islice(data, state.global_step * args.gradient_accumulation_steps)

    def scores(batch: Any) -> Tensor:
        found = model(**batch)
        with_loss = isinstance(found, tuple) and isinstance(found[0], Tensor) and found[0].dim() == 0
        return outputs_of(found[1:] if with_loss else found).movedim(-1, 1)

    rwalk.consolidate(data, scores if rwalk.config.fisher_source == "loader" else None)


def _has_ended(epoch: float | None) -> bool:
    """Whether Trainer counts whole epochs."""
    return epoch is not None and float(epoch).is_integer()


def _put_before_reporters(callback: TrainerCallback, handler: CallbackHandler) -> None:
    """Reporters come first in Trainer's list of callbacks, and nothing public moves a callback in front of them."""
    handler.callbacks.remove(callback)  # those in front have been called already, so that none is left out
    handler.callbacks.insert(0, callback)


def _of_the_model(data: Any, model: nn.Module, args: Any) -> Any:
    """A Hugging Face dataset without the columns that Trainer leaves out too."""
    if not args.remove_unused_columns or not hasattr(data, "select_columns"):
        return data
    inner: Any = model
    while hasattr(inner, "get_base_model"):  # PEFT's forward takes anything
        inner = inner.get_base_model()
    known = {*inspect.signature(inner.forward).parameters, "label", "label_ids", *(args.label_names or ["labels"])}
    return data.select_columns([name for name in data.column_names if name in known])


def _refuse_what_cannot_work(state: Any, optimizer: Optimizer) -> None:
    if isinstance(optimizer, DeepSpeedOptimizerWrapper):
        raise RWalkError("DeepSpeed steps inside backward, on gradients it keeps to itself: train with DDP or FSDP")
    if state.is_hyper_param_search:
        raise RWalkError(
            "a hyperparameter search trains many models with one callback, and RWalk's state is one model's: train "
            "each trial in a Trainer of its own"
        )
