"""Exemplars in the order of their importance, and how new samples join them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from rwalk.replay.probe import Probe
from rwalk.replay.sampler import Candidates, Sampler

__all__ = ["Ranking", "Sample"]

Sample = tuple[Any, Any, Any]


@dataclass(frozen=True)
class Ranking:
    """Exemplars of a class, or of the whole stream.

    Attributes:
        samples: ``(x, y, task label)``, the most important first.
        keys: Of samplers that are ``keyed``, one for each sample, float64; else empty.
    """

    samples: list[Sample] = field(default_factory=list)
    keys: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))

    def first(self, count: int) -> Ranking:
        """The most important ones."""
        return Ranking(self.samples[:count], self.keys[:count])

    def joined_by(
        self,
        dataset: Dataset[Any],
        members: Sequence[int],
        budget: int,
        sampler: Sampler,
        *,
        label: int | None,
        task_label: int,
        probe: Probe | None,
    ) -> Ranking:
        """What the sampler chooses of these exemplars and of new samples.

        Args:
            dataset: Holds the new samples; only the chosen ones are read, unless the sampler looks at all of them.
            members: Their positions in it.
            budget: How many may stay.
            sampler: Chooses.
            label: The class, or None.
            task_label: For new samples that carry none.
            probe: For samplers that look at the model.

        Raises:
            ValueError: The sampler's choice is no choice: positions that repeat, do not exist, or are too many.
        """
        old = len(self.samples)
        drawn = torch.rand(len(members) if sampler.keyed else 0, dtype=torch.float64)
        keys = torch.cat([self.keys, drawn])
        data = [part for part in (_Kept(self.samples), Subset(dataset, members)) if len(part)]
        candidates = Candidates(old + len(members), data, label, keys, probe)
        positions = sampler.choose(candidates, budget).tolist()
        if len(positions) > budget or len(set(positions)) < len(positions) or not _within(positions, candidates.count):
            raise ValueError(
                f"sampler {sampler.name!r} chose {positions}: expected at most {budget} distinct positions from 0 to "
                f"{candidates.count - 1}"
            )
        samples = [self.samples[p] if p < old else _read(dataset, members[p - old], task_label) for p in positions]
        return Ranking(samples, keys[positions] if sampler.keyed else keys)


class _Kept(Dataset[Sample]):
    """Exemplars as a dataset whose labels are plain numbers, whatever they were stored as."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        x, y, task = self.samples[index]
        return x, int(y), int(task)


def _within(positions: Sequence[int], count: int) -> bool:
    return all(0 <= position < count for position in positions)


def _read(dataset: Dataset[Any], position: int, task_label: int) -> Sample:
    x, y, *rest = dataset[position]
    return _own(x), _own(y), _own(rest[0]) if rest else task_label


def _own(value: Any) -> Any:
    """A sample is often a view of a whole dataset, which it would keep in memory and take along into every file."""
    return value.clone() if isinstance(value, Tensor) else value
