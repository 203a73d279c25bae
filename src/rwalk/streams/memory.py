"""Arrays and torch datasets as training and test data in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rwalk.streams.data import TensorData
from rwalk.streams.decoding import as_inputs
from rwalk.streams.in_memory import as_tensor_data

__all__ = ["read_into_memory"]


def read_into_memory(what: str, source: Any) -> TensorData:
    """The samples of a torch dataset, or of a pair of arrays.

    Args:
        what: What the samples are, for messages, such as ``"the test data of cats"``.
        source: A torch ``Dataset`` of ``(x, y)`` or ``(x, y, task label)``, read once from beginning to end; or a pair
            ``(x, y)`` of tensors, NumPy arrays or lists. A ``TensorData`` is taken as it is.

    Raises:
        TypeError: Something else.
        ValueError: No labelled numbers of one shape.
    """
    if isinstance(source, TensorData):
        return source
    if isinstance(source, Dataset):
        return _dataset(what, source)
    if isinstance(source, tuple | list) and len(source) == 2:
        x, y = (_tensor(what, role, values) for role, values in zip(("inputs", "labels"), source, strict=True))
        try:
            return as_inputs(x, y)
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error
    raise TypeError(f"{what} is of type {type(source).__name__}: expected a torch Dataset or a pair of arrays (x, y)")


def _tensor(what: str, role: str, values: Any) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        dtype = getattr(values, "dtype", type(values).__name__)
        raise ValueError(f"{role} of {what} are no array of numbers ({dtype}: {error})") from error


def _dataset(what: str, source: Dataset[Any]) -> TensorData:
    try:
        data = as_tensor_data(source)
        if data is None:
            data = TensorData.from_samples([_sample(source, i) for i in range(len(source))])  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{what} cannot be read into memory ({error}): expected samples (x, y) with tensors x of one shape and "
            f"whole numbers y"
        ) from error
    return data if data.transform is not None else as_inputs(data.x, data.targets, data.task_labels)


def _sample(source: Dataset[Any], position: int) -> tuple[Any, Any, Any]:
    sample = source[position]
    if not isinstance(sample, tuple | list) or len(sample) not in (2, 3):
        raise ValueError(f"sample {position} is a {type(sample).__name__}, not labelled")
    return sample[0], sample[1], sample[2] if len(sample) == 3 else 0
