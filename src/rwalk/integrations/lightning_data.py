"""Lightning: the data of a task, for a Fisher that is estimated at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from inspect import signature
from itertools import islice
from typing import TYPE_CHECKING, Any

from rwalk.core import RWalk
from rwalk.core.likelihood import split
from rwalk.core.squares import size_of
from rwalk.errors import RWalkError

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = ["DataOfTask", "prepared", "refuse_uncallable", "refuse_unreadable_data", "source_of"]

CALLS = "calls the module on the task's batches at its end"
SAY_HOW = "give RWalkCallback(forward=lambda module, batch: ...), which returns its scores of a batch"
WAY_OUT = "take consolidate_on=None, and call callback.consolidate(batches, forward) when the fit has ended"


def prepared(trainer: Trainer, batch: Any) -> Any:
    """On the device and in the precision of the module, as for a training step."""
    return trainer.precision_plugin.convert_input(trainer.strategy.batch_to_device(batch))


class DataOfTask:
    """The fit's batches, each time it is gone through: as many as an epoch has; or as were trained, if not known.

    Args:
        trainer: Of the fit.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def __iter__(self) -> Iterator[Any]:
        """Once through, read anew."""
        limit = self._trainer.num_training_batches
        if limit == float("inf"):  # it may be endless
            limit = self._trainer.fit_loop.total_batch_idx + 1
        loader: Any = self._trainer.train_dataloader
        return map(partial(prepared, self._trainer), islice(loader, int(limit)))


def refuse_unreadable_data(trainer: Trainer, module: LightningModule, rwalks: Iterable[RWalk], *, told: bool) -> None:
    """Refuse before training what could not be read at its end.

    Args:
        trainer: Of the fit.
        module: Is called at the end of the task.
        rwalks: Which of them ask for data.
        told: The user says how the module is called on a batch.

    Raises:
        RWalkError: The Fisher needs the task's data, and this fit has a collection of loaders or the module no
            ``forward``.
    """
    from lightning.pytorch import LightningModule  # its absence is told of where the callback is

    source = source_of(rwalks)
    if source is None:
        return
    if isinstance(trainer.train_dataloader, (Mapping, list, tuple)):
        raise RWalkError(
            f"fisher_source={source!r} {CALLS}, and this fit has a collection of loaders "
            f"({_named(trainer.train_dataloader)}), of which it is not known how: {WAY_OUT}"
        )
    if not told and getattr(module.forward, "__func__", None) is LightningModule.forward:
        raise RWalkError(
            f"fisher_source={source!r} {CALLS}, and {type(module).__name__} has no forward: define it, or {SAY_HOW}"
        )


def refuse_uncallable(module: LightningModule, batch: Any, source: str, *, told: bool) -> None:
    """Refuse at the first batch what the module could not be called with at the task's end.

    Args:
        module: Is called at the end of the task.
        batch: The first of the fit.
        source: Of the Fisher: ``"samples"`` needs batches whose samples can be told apart, whoever calls the module.
        told: The user says how the module is called on a batch.

    Raises:
        RWalkError: The batch is nothing to call a model with, or ``forward`` does not take its entries.
    """
    if source == "loader" and told:
        return
    try:
        first = isinstance(batch, (list, tuple)) and batch and source == "loader"
        inputs = batch[0] if first else split(batch)[0]
        if source == "samples":
            size_of(batch)
    except RWalkError:
        raise RWalkError(
            f"fisher_source={source!r} {CALLS}, and of this fit's, a {type(batch).__name__}, it is not known how: "
            "expected a tensor x, a pair (x, y) or a dictionary, of tensors with as many samples each; "
            + (SAY_HOW if source == "loader" else WAY_OUT)
        ) from None
    named = isinstance(inputs, Mapping)
    if told or (_takes(module.forward, (), inputs) if named else _takes(module.forward, (inputs,), {})):
        return
    taken = ", ".join(map(repr, inputs)) if named else "one input"
    raise RWalkError(
        f"fisher_source={source!r} {CALLS}, and the forward of {type(module).__name__} does not take {taken}: {SAY_HOW}"
    )


def source_of(rwalks: Iterable[RWalk]) -> str | None:
    """Where the Fisher comes from that asks for a task's data; None if none does."""
    return next((rwalk.config.fisher_source for rwalk in rwalks if rwalk.config.fisher_source != "step"), None)


def _takes(function: Callable[..., Any], positional: Sequence[Any], named: Mapping[str, Any]) -> bool:
    try:
        signature(function).bind(*positional, **named)
    except TypeError:
        return False
    return True


def _named(loaders: Any) -> str:
    return ", ".join(map(repr, loaders)) if isinstance(loaders, Mapping) else f"a {type(loaders).__name__}"
