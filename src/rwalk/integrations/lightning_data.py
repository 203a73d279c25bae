"""Lightning: the data of a task, for a Fisher that is estimated at its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from rwalk.core import RWalk
from rwalk.errors import RWalkError

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

__all__ = ["data_of_task", "prepared", "refuse_unreadable_data"]

WAY_OUT = "take consolidate_on=None, and call callback.rwalk.consolidate(batches, forward) when the fit has ended"


def prepared(trainer: Trainer, batch: Any) -> Any:
    """On the device and in the precision of the module, as for a training step."""
    return trainer.precision_plugin.convert_input(trainer.strategy.batch_to_device(batch))


def data_of_task(trainer: Trainer) -> Iterable[Any]:
    """The fit's batches, once through: as many as an epoch has; where that is not known, as many as were trained."""
    limit = trainer.num_training_batches
    if limit == float("inf"):  # it may be endless
        limit = trainer.fit_loop.total_batch_idx + 1
    loader: Any = trainer.train_dataloader
    return map(partial(prepared, trainer), islice(loader, int(limit)))


def refuse_unreadable_data(trainer: Trainer, module: LightningModule, rwalks: Iterable[RWalk]) -> None:
    """Refuse before training what could not be read at its end.

    Raises:
        RWalkError: The Fisher needs the task's data, and this fit has a collection of loaders or the module no
            ``forward``.
    """
    from lightning.pytorch import LightningModule  # its absence is told of where the callback is

    sources = [rwalk.config.fisher_source for rwalk in rwalks if rwalk.config.fisher_source != "step"]
    if not sources:
        return
    if isinstance(trainer.train_dataloader, (Mapping, list, tuple)):
        raise RWalkError(
            f"fisher_source={sources[0]!r} calls the module on the task's batches at its end, and this fit has a "
            f"collection of loaders ({_named(trainer.train_dataloader)}), of which it is not known how: {WAY_OUT}"
        )
    if getattr(module.forward, "__func__", None) is LightningModule.forward:
        raise RWalkError(
            f"fisher_source={sources[0]!r} calls the module on the task's batches at its end, and "
            f"{type(module).__name__} has no forward: define it, or {WAY_OUT}"
        )


def _named(loaders: Any) -> str:
    return ", ".join(map(repr, loaders)) if isinstance(loaders, Mapping) else f"a {type(loaders).__name__}"
