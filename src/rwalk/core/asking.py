"""What a model says of batches, by class: its answers, and how many of them are right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from rwalk.batches import to_device
from rwalk.core.likelihood import IGNORED, Likelihood, call, checked_class_dim, outputs_of, split, tell
from rwalk.core.samples import own_loss
from rwalk.errors import RWalkError
from rwalk.module_state import in_eval_mode

__all__ = ["NONE_COUNTS", "accuracy", "answers", "class_dims"]

NONE_COUNTS = f"new has no label that counts, there are none but {IGNORED}: give batches whose answers are known"


@torch.no_grad()
def answers(
    model: nn.Module, batches: Iterable[Any], class_dim: int | None, told: Mapping[int, int] | None = None
) -> Tensor:
    """The most likely class of every sample, or of every position of one, flat, int64, shape (N,); -1 where it is NaN.

    Args:
        model: Gives scores of classes.
        batches: With labels or without.
        class_dim: Which dimension of the outputs goes over classes; None: the last, or what was told.
        told: It by the number of the outputs' dimensions.
    """
    device, found = next(model.parameters()).device, []
    with in_eval_mode(model):
        for batch in batches:
            outputs = outputs_of(call(model, split(to_device(batch, device))[0]))
            dim = checked_class_dim(class_dim, outputs)
            dim = (told or {}).get(outputs.dim(), -1) if dim is None else dim
            found.append(_said(outputs, dim).flatten())
    return torch.cat(found)


@torch.no_grad()
def class_dims(model: nn.Module, batches: Iterable[Any]) -> dict[int, int]:
    """Which dimension of outputs goes over classes, by how many they have, as the labels of batches tell it."""
    with in_eval_mode(model):
        told = [(outputs.dim(), found.class_dim) for outputs, _, found in (_told(model, b, None) for b in batches)]
    return dict(reversed(told))


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[Any], class_dim: int | None) -> float:
    """Share of labels that count which the model answers rightly, 0 to 1.

    Raises:
        RWalkError: Outputs are no scores of classes, or no label counts.
    """
    right, count = 0, 0
    with in_eval_mode(model):
        for batch in batches:
            outputs, labels, told = _told(model, batch, class_dim)
            if told.kind != "categorical" or told.soft:
                raise RWalkError(
                    f"outputs of shape {tuple(outputs.shape)} and labels of shape {tuple(labels.shape)} are "
                    f"{told.kind}: choose_lambda counts classes; for other tasks, try strengths in your own loop"
                )
            said = _said(outputs, told.class_dim)
            if told.shift:  # what is said at one position is of the next
                said, labels = said[:, :-1], labels[:, 1:]
            counted = labels != IGNORED
            right += int((said == labels)[counted].sum())
            count += int(counted.sum())
    if not count:
        raise RWalkError(NONE_COUNTS)
    return right / count


def _told(model: nn.Module, batch: Any, class_dim: int | None) -> tuple[Tensor, Tensor, Likelihood]:
    """A batch's outputs and labels, and what they are."""
    batch = to_device(dict(batch) if isinstance(batch, Mapping) else batch, next(model.parameters()).device)
    inputs, labels = cast("tuple[Any, Tensor]", split(batch))
    outputs = outputs_of(call(model, inputs))
    return outputs, labels, tell(outputs, labels, kind=None, class_dim=class_dim, loss=own_loss(model, batch))


def _said(outputs: Tensor, dim: int) -> Tensor:
    """The most likely class; -1, which is none, where a score is NaN: argmax would take it for the largest."""
    return outputs.argmax(dim).masked_fill(outputs.isnan().any(dim), -1)
