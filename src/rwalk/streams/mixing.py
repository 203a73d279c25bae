"""Batches of new and remembered samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from rwalk.streams.collating import Collate, concatenated
from rwalk.streams.data import TensorData
from rwalk.streams.loader import Batches
from rwalk.streams.passes import Pass

__all__ = ["InTurn", "MixedLoader", "as_given", "joined", "stacked"]


class MixedLoader:
    """Each batch holds samples of the new data and a share of remembered ones.

    The remembered data is gone through in a new random order again and again; its share is always full, so that few
    exemplars weigh as much as many.

    Args:
        new: Batches of the new data, ``[x, y, task label]`` or mappings; they determine the length of a pass. Those
            of a ``DataLoader`` of ``data_loader`` get remembered samples before they are stacked, so that a user's
            ``collate_fn`` sees them all (its ``collate_fn`` is replaced).
        old: The remembered data: in memory, or samples ``(x, y, task label)``, of rows that are mappings
            ``(row, target, task label)``.
        old_batch_size: Remembered samples in each batch, or what draws their positions for one batch after the other.

    Raises:
        ValueError: ``old_batch_size`` is below 1, or nothing is remembered.
    """

    def __init__(
        self, new: Batches, old: TensorData | Sequence[Any], old_batch_size: int | Callable[[], Tensor]
    ) -> None:
        if isinstance(old_batch_size, int) and old_batch_size < 1:
            raise ValueError(f"old_batch_size={old_batch_size!r}: expected at least 1")
        if len(old) == 0:
            raise ValueError("nothing is remembered: expected at least 1 sample to mix in")
        self.new, self.old_batch_size = new, old_batch_size
        loader: Any = new
        while isinstance(loader, MixedLoader):
            loader = loader.new
        loader = getattr(loader, "base_dataloader", loader)  # Accelerate wraps the one that collates
        self._within = isinstance(getattr(loader, "collate_fn", None), Collate)
        self.old = old if self._within or isinstance(old, TensorData) else stacked(old)
        self._drawing: Any = self._draw()
        if self._within:
            loader.collate_fn = _Joined(loader.collate_fn, [old[at] for at in range(len(old))], self._drawing)
        self._pass: Pass | None = None
        self._left: dict[str, Any] | None = None

    def __len__(self) -> int:
        """Batches in a pass."""
        return len(self.new)

    def __iter__(self) -> Iterator[Any]:
        """One pass over the new data, or what was left of one."""
        left, self._left = self._left, None
        if not self._within:
            self._drawing = self._draw()
        self._pass = Pass(self.new, None if left is None else left["new"])
        if left is not None:
            load = getattr(self._drawing, "load_state_dict", None)
            if load is not None:
                load(left["draw"])
        for batch in self._pass:
            yield batch if self._within else joined(batch, self.old, self._drawing())

    def state_dict(self) -> dict[str, Any]:
        """Where the pass stands, between two batches."""
        save = getattr(self._drawing, "state_dict", None)  # a function of a user's may have none
        draw = None if save is None else save()
        return {"new": cast("Pass", self._pass).state_dict(), "draw": draw}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The next pass is what was left of another one."""
        self._left = state_dict

    def _draw(self) -> Callable[[], Tensor]:
        size = self.old_batch_size
        return InTurn(torch.arange(len(self.old)), size) if isinstance(size, int) else size


class InTurn:
    """Positions, so many at a time, in a random order, and when all have been taken, in another one."""

    def __init__(self, positions: Tensor, count: int = 1) -> None:
        self.positions, self.count, self.waiting = positions, count, positions[:0]

    def __call__(self, count: int | None = None) -> Tensor:
        """The next ones."""
        count = self.count if count is None else count
        if len(self.waiting) < count:
            rounds = -((len(self.waiting) - count) // len(self.positions))
            orders = (self.positions[torch.randperm(len(self.positions))] for _ in range(rounds))
            self.waiting = torch.cat([self.waiting, *orders])
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken

    def state_dict(self) -> dict[str, Any]:
        """The positions that come next."""
        return {"waiting": self.waiting.clone()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with these."""
        self.waiting = state_dict["waiting"].clone()


def joined(batch: Any, old: TensorData | Sequence[Any], chosen: Tensor) -> Any:
    """A batch, and behind it the remembered samples at some positions."""
    if len(chosen) == 0:
        return batch
    if isinstance(old, TensorData):
        at = chosen.to(old.targets.device)
        labels = (part.index_select(0, at) for part in (old.targets, old.task_labels))
        return concatenated(batch, [old.inputs(at), *labels])
    return concatenated(batch, Collate()([as_given(old[position], batch) for position in chosen.tolist()]))


class _Joined(Collate):
    """Lets remembered samples join those that become a batch; where a ``DataLoader`` has workers, there."""

    def __init__(self, inner: Collate, old: Sequence[Any], draw: Callable[[], Tensor]) -> None:
        super().__init__(inner, inner.task_label)
        self.inner, self.old, self.draw = inner, old, draw

    def __call__(self, samples: list[Any], tasks: Tensor | None = None) -> Any:
        chosen = [self.old[position] for position in self.draw().tolist()]
        if tasks is None:
            tasks = torch.full((len(samples),), self.task_label, dtype=torch.int64)
        joined = torch.cat([tasks, torch.tensor([int(task) for *_, task in chosen], dtype=torch.int64)])
        return self.inner([*samples, *(as_given(sample, samples[0]) for sample in chosen)], joined)


def as_given(sample: Any, like: Any) -> Any:
    """A remembered ``(x, y, task label)`` in the form of another sample: with or without a task label, or a row."""
    return tuple(sample[: len(like)]) if isinstance(like, tuple | list) else sample[0]


def stacked(samples: Sequence[Any]) -> TensorData | Sequence[Any]:
    """Samples ``(x, y, task label)`` in memory, if they are tensors of one shape; else as they are."""
    try:
        return TensorData.from_samples(samples)
    except (TypeError, ValueError, RuntimeError):
        return samples
