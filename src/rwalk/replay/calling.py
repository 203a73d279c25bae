"""How samples reach a model where nobody says how: pairs, or rows whose columns are the model's arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from rwalk.batches import LABEL_COLUMNS, TASK_LABELS, scores_of, to_device

__all__ = ["called", "scores_in", "stacked"]


def stacked(samples: list[Any]) -> Any:
    """A batch as torch makes it, but of rows with lists of numbers, as a Hugging Face dataset gives them, tensors."""
    if isinstance(samples[0], Mapping):
        samples = [{name: _as_tensor(value) for name, value in row.items()} for row in samples]
    return default_collate(samples)


def called(model: nn.Module, batch: Any) -> Any:
    """A model's output for a batch, on the model's device.

    Args:
        model: Gets columns by name where it takes all of these names, else the mapping as it is.
        batch: Inputs, ``[x, y, ...]``, or a mapping of columns, of which the labels are left out.

    Raises:
        TypeError: It cannot be called like that with these columns.

    Example:
        >>> called(nn.Flatten(), {"input": torch.zeros(2, 3, 4), "label": torch.tensor([0, 1])}).shape
        torch.Size([2, 12])
    """
    if isinstance(batch, Mapping):
        inputs: Any = {name: part for name, part in batch.items() if name not in (*LABEL_COLUMNS, TASK_LABELS)}
    else:
        inputs = batch if isinstance(batch, Tensor) else batch[0]
    anchor = next(chain(model.parameters(), model.buffers()), None)
    inputs = inputs if anchor is None else to_device(inputs, anchor.device)
    if not isinstance(inputs, Mapping):
        return model(inputs)
    try:
        return model(**inputs) if _takes(model, inputs) else model(inputs)
    except TypeError as error:
        raise TypeError(
            f"{type(model).__name__} cannot be called with {', '.join(map(repr, inputs))} ({error}): say how with "
            "Probe(model, forward=lambda batch: model(...))"
        ) from error


def scores_in(output: Any) -> Tensor:
    """A model's output, the ``logits`` in it, or the first of several.

    Raises:
        TypeError: It is no tensor and holds none.
    """
    found = scores_of(output)
    if not isinstance(found, Tensor):
        raise TypeError(
            f"the model gives a {type(output).__name__}: expected a tensor with a row for each sample, or an output "
            "with such logits; take it out with Probe(model, forward=lambda batch: model(...)[...])"
        )
    return found


def _takes(model: nn.Module, inputs: Mapping[str, Any]) -> bool:
    parameters = inspect.signature(model.forward).parameters
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return anything or all(name in parameters for name in inputs)


def _as_tensor(value: Any) -> Any:
    try:
        return torch.as_tensor(value) if isinstance(value, list) else value
    except (TypeError, ValueError):  # text
        return value
