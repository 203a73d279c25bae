"""Replay of exemplars."""

from __future__ import annotations

from typing import Any

from rwalk.replay import ExemplarMemory
from rwalk.streams import MixedLoader, TensorData, labels_of, task_label_of
from rwalk.training.events import BasePlugin

__all__ = ["ReplayPlugin"]


class ReplayPlugin(BasePlugin):
    """Mixes exemplars of past experiences into every batch.

    After an experience, exemplars of its classes are drawn uniformly. From the second experience on, each batch of
    ``train_mb_size`` new samples is joined by as many remembered ones.

    Args:
        per_class: Exemplars of each class. Give this or ``mem_size``.
        mem_size: Exemplars in all, shared out evenly over the classes seen.
        batch_size_mem: Remembered samples in a batch; ``train_mb_size`` if None.

    Raises:
        ValueError: Both budgets or neither, or a number below 1.

    Attributes:
        memory: The exemplars.
    """

    supports_distributed = True

    def __init__(
        self, *, per_class: int | None = None, mem_size: int | None = None, batch_size_mem: int | None = None
    ) -> None:
        if batch_size_mem is not None and batch_size_mem < 1:
            raise ValueError(f"batch_size_mem={batch_size_mem!r}: expected at least 1")
        self.memory = ExemplarMemory(per_class=per_class, total=mem_size)
        self.batch_size_mem = batch_size_mem

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Let batches hold new and old samples."""
        if len(self.memory):
            old = TensorData.from_samples(self.memory.samples)
            size = strategy.train_mb_size if self.batch_size_mem is None else self.batch_size_mem
            strategy.dataloader = MixedLoader(strategy.dataloader, old, size)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Remember some of this experience."""
        experience = strategy.experience
        self.memory.update(experience.dataset, labels_of(experience.dataset), task_label_of(experience))
