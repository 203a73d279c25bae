"""Lightning 2: a callback that keeps what earlier fits taught, under automatic and manual optimization."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from rwalk.core import RWalk, RWalkConfig
from rwalk.core.files import load_state
from rwalk.core.first_protection import FirstProtection
from rwalk.errors import MissingExtraError, RWalkError
from rwalk.integrations.lightning_data import (
    DataOfTask,
    prepared,
    refuse_uncallable,
    refuse_unreadable_data,
    source_of,
)
from rwalk.integrations.several import RWalkGroup
from rwalk.integrations.walk_end import WalkEnd
from rwalk.module_state import weights_version

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import Checkpoint
except ImportError as error:
    raise MissingExtraError("RWalkCallback", "lightning", error) from error

__all__ = ["RWalkCallback"]

#: Samples in a batch of a dataset that is to be protected.
DEFAULT_BATCH = 32


class RWalkCallback(Callback):
    """Protects what past tasks taught, in ``lightning.Trainer``.

    It attaches to the fit's optimizers as training starts and lets go as it ends. A task ends where the fit leaves the
    weights: after the other callbacks, whatever their order (weights averaged by one of them are the anchor), and
    before the last checkpoint is saved. Each optimizer that holds protected parameters gets an RWalk of its own, which
    scales importances over that optimizer's parameters. Give the *same object* to the Trainer of the next task, or its
    saved state to a new one.

    Args:
        config: Settings; the saved ones if None and there are any, else ``RWalkConfig()``.
        consolidate_on: When a task ends: ``"train_end"``, when ``fit`` has trained to its end (not when it is
            interrupted); every so many optimizer steps, at the end of the batch that completes them; or None, when you
            call ``consolidate``.
        start_from: A file that ``callback.rwalk.save`` wrote, to go on from in a first ``fit``; of several optimizers
            a file for each, in any order: a state goes to the optimizer that holds its parameters. One without a file
            starts anew.
        log: Log ``rwalk.report().metrics()`` every ``log_every_n_steps`` steps; of several optimizers each one's, the
            second's under ``rwalk/optimizer_1/``, and so on.
        protect: What the model knows already: a ``DataLoader``, batches or a dataset. When the first ``fit`` begins,
            ``RWalk.protect`` protects the module as it stands, by its ``forward``; ``combine="replace"`` becomes
            ``"sum"``, so that this is kept. A state that is loaded has it already.
        protect_options: Keyword arguments of ``RWalk.protect``.
        forward: For ``fisher_source="loader"`` and ``"samples"``, a function of module and batch that returns the
            module's scores, where that takes more than calling it with the batch's entries but the labels.

    Raises:
        ValueError: ``consolidate_on`` is none of these, or an option that ``RWalk.protect`` does not have.
        TypeError: ``protect`` is a single batch.
        RWalkError: In ``fit``: DeepSpeed, LBFGS, a parameter in two optimizers, no optimizer with protected parameters,
            a second RWalk on an optimizer, a parameter or optimizer gone whose importances are kept, a state that fits
            no optimizer or several, a Fisher that is estimated at the task's end from several loaders, through a
            module without ``forward`` or one that does not take the batches' entries, or of what is no batch of
            samples.

    Attributes:
        rwalks: The cores, by the optimizer's place in ``trainer.optimizers``; empty until training starts.

    Example:
        >>> callback = RWalkCallback(RWalkConfig(ewc_lambda=10.0))
        >>> # Trainer(max_epochs=3, callbacks=[callback]).fit(module, first_data)
        >>> # Trainer(max_epochs=3, callbacks=[callback]).fit(module, second_data)
    """

    def __init__(
        self,
        config: RWalkConfig | None = None,
        *,
        consolidate_on: Literal["train_end"] | int | None = "train_end",
        start_from: str | Path | Sequence[str | Path] | None = None,
        log: bool = False,
        protect: Any = None,
        protect_options: Mapping[str, Any] | None = None,
        forward: Callable[[LightningModule, Any], torch.Tensor] | None = None,
    ) -> None:
        counts = isinstance(consolidate_on, int) and not isinstance(consolidate_on, bool) and consolidate_on >= 1
        if not counts and consolidate_on not in ("train_end", None):
            raise ValueError(f"consolidate_on={consolidate_on!r}: expected 'train_end', a number of steps ≥ 1 or None")
        self.consolidate_on, self.logs, self.forward = consolidate_on, log, forward
        self._protect = FirstProtection(protect, protect_options)
        self._group = RWalkGroup(self._protect.keeps(config) if start_from is None else config)
        self._evaluating = self._unread = False
        self._weights: list[int] | None = None  # as the steps have left them, until the next one begins
        self._end: WalkEnd | None = None  # while the other callbacks' training ends
        if start_from is not None:
            files = [start_from] if isinstance(start_from, (str, Path)) else start_from
            self._group.start_from([load_state(file) for file in files])

    @property
    def rwalks(self) -> dict[int, RWalk]:
        """The cores, by the optimizer's place in ``trainer.optimizers``; empty until training starts."""
        return self._group.rwalks

    @property
    def rwalk(self) -> RWalk:
        """The core, where one optimizer is followed.

        Raises:
            RWalkError: Training has not started yet, or there are several.
        """
        if len(self.rwalks) != 1:
            raise RWalkError(
                f"there are {len(self.rwalks)} cores: once training has started, callback.rwalks holds one for each "
                "optimizer"
            )
        return next(iter(self.rwalks.values()))

    def consolidate(
        self, batches: Iterable[Any] | None = None, forward: Callable[[Any], torch.Tensor] | None = None
    ) -> None:
        """End a task, in every core or in none.

        Args:
            batches: For ``fisher_source="loader"`` and ``"samples"``, as in ``RWalk.consolidate``; each core reads all.
            forward: Maps a batch to scores of classes.
        """
        self._group.consolidate(batches, forward)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note whether a checkpoint may be loaded only to be evaluated; refuse what cannot work."""
        self._evaluating = stage != "fit"
        if stage == "fit":  # a new list, because Lightning is going through the old one
            self._let_go(trainer)  # of a fit that failed within a tuner, where callbacks are not called
            present = _callbacks(trainer)
            savers = [callback for callback in present if isinstance(callback, Checkpoint)]
            others = [callback for callback in present if callback not in savers]
            _set_callbacks(trainer, [_EndOfWalk(self), *others, _EndOfTask(self), *savers])
        if stage == "fit" and trainer.strategy.handles_gradient_accumulation:
            raise RWalkError(
                f"{type(trainer.strategy).__name__} steps inside its own engine, where gradients cannot be read: "
                "choose strategy='ddp' or another that steps torch optimizers"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow this fit's optimizers. Checkpoints are restored and nothing is trained yet.

        Of an epoch that a resumed fit goes on with, Lightning does not tell that it starts.
        """
        is_new = not self.rwalks and not self._group.waits
        self._group.attach(pl_module, trainer.optimizers)
        if isinstance(self.consolidate_on, int) and any(r.config.fisher_source != "step" for r in self.rwalks.values()):
            raise RWalkError(
                f"consolidate_on={self.consolidate_on}: fisher_source needs a task's data at its end, and of a number "
                "of steps it is not known: take 'train_end', or None and callback.consolidate(batches)"
            )
        self._refuse_unreadable_data(trainer, pl_module)
        self._unread = True
        if is_new:
            self._protect(self.rwalks.values(), batch_size=DEFAULT_BATCH, prepare=partial(prepared, trainer))
        self._weights = weights_version(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Follow an optimizer put in place since. Weights put in place as an epoch began are no walk."""
        if self._unread:
            source, self._unread = source_of(self.rwalks.values()), False
            if source is not None and self.consolidate_on == "train_end":
                refuse_uncallable(pl_module, batch, source, told=self.forward is not None)
        if batch_idx == 0:
            self._drop_what_is_no_walk(pl_module)
        self._weights = None
        if not self._group.follows(trainer.optimizers):
            self._group.attach(pl_module, trainer.optimizers)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """End a task, if tasks are counted in steps. A checkpoint of this batch is saved afterwards."""
        for rwalk in self.rwalks.values():
            if isinstance(self.consolidate_on, int) and rwalk.task_steps >= self.consolidate_on:
                rwalk.consolidate()
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # a part of Trainer sets it
        if self.logs and every and trainer.global_step % every == 0:
            for place, rwalk in enumerate(self.rwalks.values()):
                part = f"rwalk/optimizer_{place}/" if place else "rwalk/"
                figures = {name.replace("rwalk/", part): value for name, value in rwalk.report().metrics().items()}
                pl_module.log_dict(figures)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the task of a fit resumed after its last step: Lightning neither starts nor ends its training."""
        if self._group.waits:
            self._group.attach(pl_module, trainer.optimizers)
            self._refuse_unreadable_data(trainer, pl_module)
            self._end_task(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the optimizers, and of a step that was begun. The task goes on in the next fit."""
        self._let_go(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the optimizers."""
        self._let_go(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What Lightning puts into its checkpoints."""
        if self._weights is not None:
            self._drop_what_is_no_walk(self._model())  # who goes on from here cannot tell it any more
        return self._group.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint when training starts; one loaded only to be evaluated is left alone.

        In the middle of a fit (Lightning's tuners put everything back) it goes on from there at once.
        """
        if self._evaluating:
            return
        self._group.load_state_dict(state_dict)
        if self._weights is not None:
            self._weights = weights_version(self._model())

    def _model(self) -> torch.nn.Module:
        return next(iter(self.rwalks.values())).model

    def _drop_what_is_no_walk(self, module: torch.nn.Module) -> None:
        if self._weights is not None and self._weights != weights_version(module):
            for rwalk in self.rwalks.values():
                rwalk.drop_window()
            self._weights = weights_version(module)

    def _without_ends(self, trainer: Trainer) -> list[Callback]:
        def is_ours(callback: Callback) -> bool:
            return isinstance(callback, (_EndOfWalk, _EndOfTask)) and callback._walk is self

        return [callback for callback in _callbacks(trainer) if not is_ours(callback)]

    def _let_go(self, trainer: Trainer) -> None:
        if self._end is not None:
            self._end.let_go()
        self._evaluating, self._weights, self._end = False, None, None
        self._group.detach()
        _set_callbacks(trainer, self._without_ends(trainer))

    def _refuse_unreadable_data(self, trainer: Trainer, module: LightningModule) -> None:
        if self.consolidate_on == "train_end":
            refuse_unreadable_data(trainer, module, self.rwalks.values(), told=self.forward is not None)

    def _end_task(self, trainer: Trainer) -> None:
        if self.consolidate_on != "train_end":
            return
        if source_of(self.rwalks.values()) is None:
            self.consolidate()
        else:
            forward = None if self.forward is None else partial(self.forward, trainer.lightning_module)
            self.consolidate(DataOfTask(trainer), forward)


class _EndOfWalk(Callback):
    """Comes before all other callbacks, which may put other weights in place of those that the steps have led to."""

    def __init__(self, walk: RWalkCallback) -> None:
        self._walk = walk

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the last step in, and note the weights that it has led to."""
        for rwalk in self._walk.rwalks.values():
            rwalk.settle()
        self._walk._weights = weights_version(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the last step in, and keep where it has led until the task ends."""
        if self._walk.consolidate_on == "train_end":
            self._walk._end = WalkEnd(self._walk.rwalks.values(), pl_module)
        for rwalk in self._walk.rwalks.values():
            rwalk.settle()


class _EndOfTask(Callback):
    """Comes after all other callbacks but those that save, so that the anchor is what they leave."""

    def __init__(self, walk: RWalkCallback) -> None:
        self._walk = walk

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the task; a window that is open ends where the steps have led."""
        if self._walk._end is not None:
            self._walk._end.close()
            self._walk._end = None
        self._walk._end_task(trainer)


def _callbacks(trainer: Any) -> list[Callback]:
    return list(trainer.callbacks)


def _set_callbacks(trainer: Any, callbacks: list[Callback]) -> None:
    trainer.callbacks = callbacks
