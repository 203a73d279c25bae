"""Replay whose batches are put together as Avalanche's loader does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rwalk.replay.shares import InShares
from rwalk.streams import MixedLoader, TensorData
from rwalk.streams.loader import Batches, TensorLoader
from rwalk.training import ReplayPlugin

__all__ = ["PassesLoader", "ReplayInPasses"]


class PassesLoader:
    """Joins each batch of new data by the next batch of a pass over the old data.

    A pass goes through the old data in a new random order, and its last batch holds what is left. So no old sample is
    in a batch twice, and a batch may hold fewer than asked for.

    Args:
        new: Batches ``[x, y, task label]``; they determine the length.
        old: The remembered data.
        old_batch_size: Remembered samples in a batch, at most.

    Example:
        >>> new = TensorLoader(TensorData(torch.zeros(8, 1), torch.zeros(8).long()), 2, shuffle=True)
        >>> old = TensorData(torch.ones(5, 1), torch.ones(5).long())
        >>> [len(y) - 2 for _, y, _ in PassesLoader(new, old, 3)]
        [3, 2, 3, 2]
    """

    def __init__(self, new: Batches, old: TensorData, old_batch_size: int) -> None:
        self.new, self.old = new, TensorLoader(old, old_batch_size, shuffle=True)

    def __len__(self) -> int:
        """Batches in a pass over the new data."""
        return len(self.new)

    def __iter__(self) -> Iterator[list[Tensor]]:
        """One pass over the new data."""
        old = self._again_and_again()
        for batch in self.new:
            yield [torch.cat([a, b.to(a.device)]) for a, b in zip(batch, next(old), strict=True)]

    def _again_and_again(self) -> Iterator[list[Tensor]]:
        while True:
            yield from self.old


class ReplayInPasses(ReplayPlugin):
    """``ReplayPlugin`` with batches of ``PassesLoader``."""

    @classmethod
    def like(cls, plugin: ReplayPlugin) -> ReplayInPasses:
        """With the budget, the sampler and the batch size of another plugin."""
        memory = plugin.memory
        return cls(
            per_class=memory.per_class,
            mem_size=memory.total,
            batch_size_mem=plugin.batch_size_mem,
            sampler=memory.sampler,
        )

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let batches hold new and old samples."""
        super().before_training_exp(strategy, **kwargs)
        mixed = strategy.dataloader
        if isinstance(mixed, MixedLoader):
            size = mixed.old_batch_size  # of balanced batches, what they hold on average
            number = max(1, round(float(size.shares.sum()))) if isinstance(size, InShares) else size
            strategy.dataloader = PassesLoader(mixed.new, mixed.old, number)
