"""Replay of exemplars."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rwalk.batches import to_device
from rwalk.replay import ExemplarMemory, Probe, Sampler, balanced_shares
from rwalk.replay.ranking import class_of
from rwalk.replay.shares import InShares
from rwalk.streams import MixedLoader, NoClassLabelsError, data_loader, labels_of, task_label_of
from rwalk.streams.collating import TASK_LABELS, collate_fn_of
from rwalk.streams.loader import Batches
from rwalk.streams.mixing import InTurn, joined, stacked
from rwalk.streams.passes import Pass
from rwalk.training.events import BasePlugin
from rwalk.training.rereading import given_collate_fn

__all__ = ["ReplayPlugin", "forward_on"]


class ReplayPlugin(BasePlugin):
    """Mixes exemplars of past experiences into every batch.

    After an experience, exemplars of its classes are chosen. From the second experience on, each batch of
    ``train_mb_size`` new samples is joined by as many remembered ones.

    Args:
        per_class: Exemplars of each class. Give this or ``mem_size``.
        mem_size: Exemplars in all, shared out evenly over the classes seen (with ``sampler="reservoir"``, not shared
            out at all).
        batch_size_mem: Remembered samples in a batch; ``train_mb_size`` if None. ``"balanced"`` takes as many of each
            remembered class as there are new ones of a new class, on average; of a class that comes again, as many as
            are missing from that among the new samples (see ``rwalk.replay.balanced_shares``).
        sampler: Which samples are kept: one of ``rwalk.replay.SAMPLERS`` by name, or a ``Sampler``. Those that look at
            the model see it through the strategy's own forward pass, as it is at the end of an experience. Data
            without class labels (regression, several labels, …) needs ``"reservoir"``.
        update: ``"experience"`` chooses after each experience. ``"iteration"`` offers each batch once, after it was
            first learned, for streams without boundaries; that needs a reservoir.
        seed: Exemplars are chosen with a random generator of their own; see ``ExemplarMemory``.

    Raises:
        ValueError: Both budgets or neither, a number below 1, an unknown sampler, a reservoir over all classes with a
            budget for each, or ``update="iteration"`` without a reservoir or with ``batch_size_mem="balanced"``.
        TypeError: ``sampler`` is neither a name nor a ``Sampler``.

    Attributes:
        memory: The exemplars.

    Example:
        >>> ReplayPlugin(per_class=10, sampler="plane-distance").memory.sampler
        PlaneDistance(layer=None, classifier=None)
    """

    supports_distributed = True

    def __init__(
        self,
        *,
        per_class: int | None = None,
        mem_size: int | None = None,
        batch_size_mem: int | Literal["balanced"] | None = None,
        sampler: str | Sampler = "uniform",
        update: Literal["experience", "iteration"] = "experience",
        seed: int | None = None,
    ) -> None:
        number = type(batch_size_mem) is int and batch_size_mem >= 1
        if not (number or batch_size_mem in ("balanced", None)):
            raise ValueError(f"batch_size_mem={batch_size_mem!r}: expected at least 1, 'balanced' or None")
        if update not in ("experience", "iteration"):
            raise ValueError(f"update={update!r}: expected 'experience' or 'iteration'")
        self.memory = ExemplarMemory(per_class=per_class, total=mem_size, sampler=sampler, seed=seed)
        if update == "iteration" and not self.memory.sampler.keyed:
            raise ValueError(
                f"update='iteration' with sampler {self.memory.sampler.name!r}, which has to see an experience as a "
                "whole: take 'reservoir' or 'class-balanced-reservoir'"
            )
        if update == "iteration" and batch_size_mem == "balanced":
            raise ValueError("update='iteration' with batch_size_mem='balanced', which needs an experience's classes")
        self.batch_size_mem, self.update = batch_size_mem, update

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let batches hold new and old samples.

        Raises:
            ValueError: The sampler, or ``"balanced"``, needs class labels, and this experience has none.
        """
        size: Any = strategy.train_mb_size if self.batch_size_mem is None else self.batch_size_mem
        if self.memory.sampler.by_class or size == "balanced":
            labels = self._labels(strategy.experience.dataset)
        if self.update == "iteration":
            strategy.dataloader = _OnlineLoader(strategy.dataloader, self.memory, size)
        elif len(self.memory):
            draw = self._balanced(labels, strategy.train_mb_size) if size == "balanced" else size
            if draw is not None:
                strategy.dataloader = MixedLoader(strategy.dataloader, self.memory.samples, draw)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Remember some of this experience."""
        if self.update == "iteration":
            return
        dataset, task_label = strategy.experience.dataset, task_label_of(strategy.experience)
        function = given_collate_fn(strategy, kwargs) or collate_fn_of(dataset)
        loader = partial(data_loader, shuffle=False, task_label=task_label, collate_fn=function)
        probe = Probe(strategy.model, forward=partial(forward_on, strategy), loader=loader)
        labels = self._labels(dataset) if self.memory.sampler.by_class else None
        self.memory.update(dataset, labels, task_label, model=probe)

    def state_dict(self) -> dict[str, Any]:
        """The exemplars; see ``ExemplarMemory.state_dict``."""
        return {"memory": self.memory.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict``.

        Raises:
            ValueError: It was made with another budget or sampler.
        """
        self.memory.load_state_dict(state_dict["memory"])

    def _labels(self, dataset: Any) -> Tensor:
        try:
            return labels_of(dataset)
        except NoClassLabelsError as error:
            self.memory.sampler.refuse_without_classes()
            raise ValueError(f"batch_size_mem='balanced' balances classes, and there are none: {error}") from error

    def _balanced(self, labels: Tensor, batch_size: int) -> InShares | None:
        """What draws each class's share; None where no class has one."""
        kept = torch.tensor([-1 if (label := class_of(s)) is None else label for s in self.memory.samples])
        shares = balanced_shares(Counter(labels.tolist()), Counter(kept[kept >= 0].tolist()), batch_size)
        classes = [InTurn((kept == label).nonzero().flatten()) for label in shares]
        return InShares(classes, list(shares.values())) if shares else None


class _OnlineLoader:
    """Batches joined by exemplars as they are at that moment; in the first pass, each is offered to the memory after.

    Args:
        new: Batches of the new data.
        memory: Grows and changes meanwhile.
        old_batch_size: Remembered samples in each batch, as soon as there are any.
    """

    def __init__(self, new: Batches, memory: ExemplarMemory, old_batch_size: int) -> None:
        self.new, self.memory, self.old_batch_size = new, memory, old_batch_size
        self._first_pass = True
        self._pass: Pass | None = None
        self._left: dict[str, Any] | None = None
        self._offers: bool = False
        self._batch: Any = None  # given, and not offered to the memory yet

    def __len__(self) -> int:
        return len(self.new)

    def __iter__(self) -> Iterator[Any]:
        left, self._left = self._left, None
        if left is None:
            self._offers, self._first_pass, self._batch = self._first_pass, False, None
        self._pass = Pass(self.new, None if left is None else left["new"])
        self._offer()  # the batch that a pass was left at
        for batch in self._pass:
            self._batch = batch
            yield self._joined(batch) if len(self.memory) else batch
            self._offer()  # the loop asks for the next batch when it is done with this one

    def _offer(self) -> None:
        batch, self._batch = self._batch, None
        if self._offers and batch is not None:
            samples = _Unbatched(batch)
            self.memory.update(samples, labels_of(samples) if self.memory.sampler.by_class else None)

    def state_dict(self) -> dict[str, Any]:
        waiting = self._batch if self._offers else None
        return {"new": cast("Pass", self._pass).state_dict(), "offers": self._offers, "batch": waiting}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._left, self._first_pass = state_dict, False
        self._offers, self._batch = state_dict["offers"], state_dict["batch"]

    def _joined(self, batch: Any) -> Any:
        samples = self.memory.samples
        chosen = InTurn(torch.arange(len(samples)))(self.old_batch_size)
        return joined(batch, stacked([samples[position] for position in chosen.tolist()]), torch.arange(len(chosen)))


class _Unbatched(Dataset[Any]):
    """The samples of a batch, one by one; those of a batch in a sequence are tuples."""

    def __init__(self, batch: Any) -> None:
        self.batch = batch if isinstance(batch, Mapping) else tuple(batch)

    def __len__(self) -> int:
        return len(self.batch[TASK_LABELS] if isinstance(self.batch, Mapping) else self.batch[-1])

    def __getitem__(self, index: int) -> Any:
        return _taken(self.batch, index)


def _taken(batch: Any, index: int) -> Any:
    if isinstance(batch, Mapping):
        return {key: _taken(value, index) for key, value in batch.items()}
    nested = isinstance(batch, tuple | list) and isinstance(batch[0], Tensor | Mapping | tuple | list)
    return tuple(_taken(value, index) for value in batch) if nested else batch[index]


def forward_on(strategy: Any, batch: Any) -> Any:
    """The strategy's own forward pass on a batch: it knows about heads and devices."""
    before, strategy.mbatch = strategy.mbatch, to_device(batch, strategy.device)
    try:
        return strategy.forward()
    finally:
        strategy.mbatch = before
