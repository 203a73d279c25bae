"""The shape of what a model is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.utils.data import Dataset

from rwalk.batches import LABEL_COLUMNS, TASK_LABELS

__all__ = ["input_shape_of"]


def input_shape_of(dataset: Dataset[Any]) -> tuple[int, ...]:
    """Shape of the first sample's input; () where that is not one array, but several, a number, text or a picture.

    Of a row that is a mapping, it is the shape of the only column beside the labels.

    Example:
        >>> import torch
        >>> input_shape_of([(torch.zeros(1, 28, 28), 3)]), input_shape_of([{"x": torch.zeros(4), "label": 3}])
        ((1, 28, 28), (4,))
        >>> input_shape_of([((torch.zeros(4), torch.zeros(2)), 3)])
        ()
    """
    sample = dataset[0]
    if isinstance(sample, Mapping):
        columns = [column for name, column in sample.items() if name not in (*LABEL_COLUMNS, TASK_LABELS)]
        inputs = columns[0] if len(columns) == 1 else None
    else:
        inputs = sample[0] if isinstance(sample, tuple | list) else sample
    return tuple(getattr(inputs, "shape", ()))
