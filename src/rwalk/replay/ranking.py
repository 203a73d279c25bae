"""Exemplars in the order of their importance, and how new samples join them."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from rwalk.batches import LABEL_COLUMNS
from rwalk.replay.probe import Probe
from rwalk.replay.sampler import Candidates, Sampler

__all__ = ["Ranking", "Sample", "class_of"]

Sample = tuple[Any, Any, Any]


def class_of(sample: Sample) -> int | None:
    """The class of a kept sample; None if its target is no whole number."""
    try:
        return operator.index(sample[1])
    except TypeError:
        return None


@dataclass(frozen=True)
class Ranking:
    """Exemplars of a class, or of the whole stream.

    Attributes:
        samples: ``(x, y, task label)``, of rows that are mappings ``(row, target, task label)``, the most important
            first.
        keys: Of samplers that are ``keyed``, one for each sample, float64; else empty.
    """

    samples: list[Sample] = field(default_factory=list)
    keys: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))

    def first(self, count: int) -> Ranking:
        """The most important ones."""
        if len(self.samples) <= count:
            return self
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
        data = [part for part in (_Kept(self.samples, dataset), Subset(dataset, members)) if len(part)]
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
    """Exemplars as a dataset whose samples look like those of another, and have plain numbers as class labels."""

    def __init__(self, samples: Sequence[Sample], like: Dataset[Any]) -> None:
        self.samples, self.like = samples, like

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        x, y, task = self.samples[index]
        label, like = class_of(self.samples[index]), self.like[0]
        return (x, y if label is None else label, int(task))[: len(like)] if isinstance(like, tuple | list) else x


def _within(positions: Sequence[int], count: int) -> bool:
    return all(0 <= position < count for position in positions)


def _read(dataset: Dataset[Any], position: int, task_label: int) -> Sample:
    sample = _own(dataset[position])
    if isinstance(sample, tuple | list):
        x, y, *rest = sample
        return x, y, rest[0] if rest else task_label
    row = sample if isinstance(sample, Mapping) else {}
    return sample, next((row[name] for name in LABEL_COLUMNS if name in row), None), row.get("task_labels", task_label)


def _own(value: Any) -> Any:
    """A sample is often a view of a whole dataset, which it would keep in memory and take along into every file."""
    if isinstance(value, Mapping):
        return {key: _own(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(map(_own, value))
    return value.clone() if isinstance(value, Tensor) else value
