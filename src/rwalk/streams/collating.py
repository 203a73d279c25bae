"""Samples made into a batch, whatever they are: pairs, nested structures of tensors, rows that are mappings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, default_collate

from rwalk.batches import LABEL_COLUMNS, TASK_LABELS

__all__ = ["TASK_LABELS", "Collate", "collate", "collate_fn_of", "concatenated"]


def collate(samples: Sequence[Any]) -> Any:
    """Samples of one structure as a batch of the same structure.

    As ``torch.utils.data.default_collate``, but lists of numbers become one tensor, numbers with a point get torch's
    default dtype, and what is no number (text, pictures) is listed: rows of a Hugging Face dataset can be taken.

    Raises:
        ValueError: Samples differ in shape.

    Example:
        >>> collate([({"ids": [1, 2], "name": "a"}, 0.5), ({"ids": [3, 4], "name": "b"}, 1.0)])
        [{'ids': tensor([[1, 2],
                [3, 4]]), 'name': ['a', 'b']}, tensor([0.5000, 1.0000])]
    """
    first = samples[0]
    if isinstance(first, Mapping):
        return {key: collate([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple):
        return [collate(column) for column in zip(*samples, strict=True)]
    try:
        if isinstance(first, list | float):
            return torch.stack([torch.as_tensor(sample) for sample in samples])
        return default_collate(list(samples))
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"samples cannot be stacked to a batch ({error}): bring them to one shape with a collate_fn, as in "
            "train(..., collate_fn=pad), or set it as an attribute collate_fn of the dataset"
        ) from error
    except TypeError:
        return list(samples)


def collate_fn_of(dataset: Dataset[Any]) -> Callable[[list[Any]], Any] | None:
    """What a dataset says of how its samples become a batch: its attribute ``collate_fn``, also of a part of it."""
    own = getattr(dataset, "collate_fn", None)
    if own is None and isinstance(dataset, Subset):
        return collate_fn_of(dataset.dataset)
    if own is None and isinstance(dataset, ConcatDataset):
        return collate_fn_of(dataset.datasets[0])
    return own if callable(own) else None


class Collate:
    """Makes samples a batch ``[x, y, task label]``, or, if they come as mappings, a mapping with ``task_labels``.

    A column ``label`` becomes ``labels`` where there is none of that name.

    Args:
        function: Stacks samples as the dataset gives them; ``collate`` if None.
        task_label: For samples that carry none.
    """

    def __init__(self, function: Callable[[list[Any]], Any] | None = None, task_label: int = 0) -> None:
        self.function, self.task_label = function or collate, task_label

    def __call__(self, samples: list[Any], tasks: Tensor | None = None) -> Any:
        """A batch; ``tasks`` are the task labels of samples that carry none, shape (N,), if they differ."""
        batch = self.function(samples)
        if tasks is None:
            tasks = torch.full((len(samples),), self.task_label, dtype=torch.int64)
        if isinstance(batch, Mapping):
            named, (labels, label) = dict(batch), LABEL_COLUMNS
            if label in named and labels not in named:
                named[labels] = named.pop(label)
            return {TASK_LABELS: tasks, **named}
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise TypeError(
                f"collate_fn made a {type(batch).__name__} of {len(samples)} samples: expected a batch (x, y), "
                "(x, y, task label), or a mapping of columns"
            )
        return [*batch, tasks] if len(batch) == 2 else list(batch)


def concatenated(first: Any, second: Any) -> Any:
    """Two batches of one structure as one, on the first one's device; a ``ValueError`` if they differ in shape."""
    if isinstance(first, Mapping):
        return {key: concatenated(value, second[key]) for key, value in first.items()}
    if not isinstance(first, Tensor):
        nested = first and isinstance(first[0], Tensor | Mapping | tuple | list)
        return [concatenated(a, b) for a, b in zip(first, second, strict=True)] if nested else [*first, *second]
    try:
        return torch.cat([first, second.to(first.device)])
    except RuntimeError as error:
        raise ValueError(
            f"new and remembered samples differ in shape ({error}): let collate_fn bring all batches to one shape"
        ) from error
