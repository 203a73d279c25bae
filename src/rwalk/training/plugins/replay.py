"""Replay of exemplars."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from rwalk.replay import ExemplarMemory, Probe, Sampler
from rwalk.streams import MixedLoader, TensorData, data_loader, labels_of, task_label_of
from rwalk.streams.loader import Batches
from rwalk.training.events import BasePlugin

__all__ = ["ReplayPlugin"]


class ReplayPlugin(BasePlugin):
    """Mixes exemplars of past experiences into every batch.

    After an experience, exemplars of its classes are chosen. From the second experience on, each batch of
    ``train_mb_size`` new samples is joined by as many remembered ones.

    Args:
        per_class: Exemplars of each class. Give this or ``mem_size``.
        mem_size: Exemplars in all, shared out evenly over the classes seen (with ``sampler="reservoir"``, not shared
            out at all).
        batch_size_mem: Remembered samples in a batch; ``train_mb_size`` if None. ``"balanced"`` takes as many of each
            remembered class as there are new ones of each new class, on average: ``train_mb_size`` times the number of
            remembered classes over that of new ones.
        sampler: Which samples are kept: one of ``rwalk.replay.SAMPLERS`` by name, or a ``Sampler``. Those that look at
            the model see it through the strategy's own forward pass, as it is at the end of an experience.
        update: ``"experience"`` chooses after each experience. ``"iteration"`` offers each batch once, after it was
            first learned, for streams without boundaries; that needs a reservoir.

    Raises:
        ValueError: Both budgets or neither, a number below 1, an unknown sampler, a reservoir over all classes with a
            budget for each, or ``update="iteration"`` without a reservoir or with ``batch_size_mem="balanced"``.
        TypeError: ``sampler`` is neither a name nor a ``Sampler``.

    Attributes:
        memory: The exemplars; ``memory.state_dict()`` belongs into a checkpoint.

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
    ) -> None:
        number = type(batch_size_mem) is int and batch_size_mem >= 1
        if not (number or batch_size_mem in ("balanced", None)):
            raise ValueError(f"batch_size_mem={batch_size_mem!r}: expected at least 1, 'balanced' or None")
        if update not in ("experience", "iteration"):
            raise ValueError(f"update={update!r}: expected 'experience' or 'iteration'")
        self.memory = ExemplarMemory(per_class=per_class, total=mem_size, sampler=sampler)
        if update == "iteration" and not self.memory.sampler.keyed:
            raise ValueError(
                f"update='iteration' with sampler {self.memory.sampler.name!r}, which has to see an experience as a "
                "whole: take 'reservoir' or 'class-balanced-reservoir'"
            )
        if update == "iteration" and batch_size_mem == "balanced":
            raise ValueError("update='iteration' with batch_size_mem='balanced', which needs an experience's classes")
        self.batch_size_mem, self.update = batch_size_mem, update

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let batches hold new and old samples."""
        size = self._remembered_in_a_batch(strategy)
        if self.update == "iteration":
            strategy.dataloader = _OnlineLoader(strategy.dataloader, self.memory, size)
        elif len(self.memory):
            old = TensorData.from_samples(self.memory.samples)
            strategy.dataloader = MixedLoader(strategy.dataloader, old, size)

    def _remembered_in_a_batch(self, strategy: Any) -> int:
        size: int = strategy.train_mb_size
        if self.batch_size_mem == "balanced":
            new = set(strategy.experience.classes_in_this_experience)
            return max(1, round(size * len(set(self.memory.counts) - new) / len(new)))
        return size if self.batch_size_mem is None else self.batch_size_mem

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Remember some of this experience."""
        if self.update == "iteration":
            return
        dataset, task_label = strategy.experience.dataset, task_label_of(strategy.experience)
        loader = partial(data_loader, shuffle=False, task_label=task_label)
        probe = Probe(strategy.model, forward=partial(_forward, strategy), loader=loader)
        self.memory.update(dataset, labels_of(dataset), task_label, model=probe)


class _OnlineLoader:
    """Batches joined by exemplars as they are at that moment; in the first pass, each is offered to the memory after.

    Args:
        new: Batches ``[x, y, task label]`` of the new data.
        memory: Grows and changes meanwhile.
        old_batch_size: Remembered samples in each batch, as soon as there are any.
    """

    def __init__(self, new: Batches, memory: ExemplarMemory, old_batch_size: int) -> None:
        self.new, self.memory, self.old_batch_size = new, memory, old_batch_size
        self._first_pass = True

    def __len__(self) -> int:
        return len(self.new)

    def __iter__(self) -> Iterator[list[Tensor]]:
        offers, self._first_pass = self._first_pass, False
        for batch in self.new:
            yield self._joined(batch) if len(self.memory) else batch
            if offers:  # the loop asks for the next batch when it is done with this one
                x, y, task_labels = batch
                self.memory.update(TensorData(x, y, task_labels), y)

    def _joined(self, batch: list[Tensor]) -> list[Tensor]:
        samples = self.memory.samples
        rounds = -(-self.old_batch_size // len(samples))
        positions = torch.cat([torch.randperm(len(samples)) for _ in range(rounds)])[: self.old_batch_size].tolist()
        old = TensorData.from_samples([samples[position] for position in positions]).batch(slice(None))
        return [torch.cat([a, b.to(a.device)]) for a, b in zip(batch, old, strict=True)]


def _forward(strategy: Any, batch: Any) -> Any:
    """The strategy's own forward pass on a batch: it knows about heads and devices."""
    before, strategy.mbatch = strategy.mbatch, [part.to(strategy.device) for part in batch]
    try:
        return strategy.forward()
    finally:
        strategy.mbatch = before
