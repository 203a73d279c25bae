"""What a batch holds: a sequence ``[x, y, ..., task label]``, or a mapping with ``labels`` and ``task_labels``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "LABELS",
    "LABEL_COLUMNS",
    "TASK_LABELS",
    "checked_scores",
    "detached",
    "inputs_of",
    "loss_of",
    "ordinary",
    "refuse_single",
    "scores_of",
    "targets_of",
    "task_labels_of",
    "to_device",
    "with_scores",
]

LABELS, TASK_LABELS = "labels", "task_labels"
LABEL_COLUMNS = (LABELS, "label")  # of rows that are mappings, the first of them that there is


def to_device(part: Any, device: torch.device) -> Any:
    """A batch, or a part of one, on a device: tensors at any depth, and what else can be moved.

    Example:
        >>> to_device({"x": (torch.zeros(1), "name")}, torch.device("meta"))["x"][0].device
        device(type='meta')
    """
    if isinstance(part, Tensor):
        return part if part.device == device else part.to(device, non_blocking=True)
    if callable(getattr(part, "to", None)):  # packed sequences, tokenizers' batches
        return part.to(device)
    return _each(part, lambda inner: to_device(inner, device))


def ordinary(part: Any) -> Any:
    """A batch whose tensors gradients may go through: those that were made in inference mode are copied.

    Example:
        >>> with torch.inference_mode():
        ...     x = torch.zeros(1)
        >>> ordinary([x])[0].is_inference()
        False
    """
    if isinstance(part, Tensor):
        return part.clone() if part.is_inference() else part
    return _each(part, ordinary)


def refuse_single(name: str, batches: Any) -> None:
    """Refuse a single batch where several are expected, before it is taken apart.

    A list or tuple of tensors is one where they are as many and of different kinds, as inputs and labels are.

    Args:
        name: What the batches are called.
        batches: What was given.

    Raises:
        TypeError: It is a single batch.

    Example:
        >>> refuse_single("batches", [(torch.zeros(8, 3), torch.zeros(8).long())])
        >>> refuse_single("batches", (torch.zeros(8, 3), torch.zeros(8).long()))
        Traceback (most recent call last):
        TypeError: batches is one tuple of inputs and labels: expected an iterable of batches; one batch is [batch]
    """
    if isinstance(batches, (Tensor, Mapping, str)):
        told = type(batches).__name__
    elif isinstance(batches, (list, tuple)) and _is_batch(batches):
        told = f"{type(batches).__name__} of inputs and labels"
    else:
        return
    raise TypeError(f"{name} is one {told}: expected an iterable of batches; one batch is [batch]")


def _is_batch(parts: Sequence[Any]) -> bool:
    """Whether parts are tensors with as many samples, but not all of them as batches of inputs are."""
    tensors = [part for part in parts if isinstance(part, Tensor) and part.dim()]
    if len(tensors) < len(parts):
        return False
    return len({len(part) for part in tensors}) == 1 and len({(part.dtype, part.dim()) for part in tensors}) > 1


def detached(part: Any) -> Any:
    """Outputs of a model without their graph."""
    return part.detach() if isinstance(part, Tensor) else _each(part, detached)


def inputs_of(batch: Any) -> Any:
    """What the model takes: the first part; of a mapping, all but the labels."""
    if isinstance(batch, Mapping):
        return {name: part for name, part in batch.items() if name not in (LABELS, TASK_LABELS)}
    return batch[0]


def targets_of(batch: Any) -> Any:
    """What it should answer: the second part; of a mapping, its ``labels``, or None."""
    return batch.get(LABELS) if isinstance(batch, Mapping) else batch[1]


def task_labels_of(batch: Any, otherwise: int) -> Any:
    """Task labels: the last part after inputs and targets; of a mapping, its ``task_labels``.

    Args:
        batch: The batch.
        otherwise: The label of all samples, where the batch holds none.
    """
    found = batch.get(TASK_LABELS) if isinstance(batch, Mapping) else batch[-1] if len(batch) > 2 else None
    if found is not None:
        return found
    some = next(_tensors(batch), torch.empty(0))
    return torch.full((len(some),), otherwise, dtype=torch.int64, device=some.device)


def scores_of(output: Any) -> Any:
    """What a model's output says of the targets: itself, its ``logits`` (Hugging Face's), or the first of several.

    Example:
        >>> scores, features = torch.zeros(2, 3), torch.zeros(2, 8)
        >>> all(scores_of(output) is scores for output in (scores, {"logits": scores}, (scores, features)))
        True
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        return output.get("logits")
    found = getattr(output, "logits", None)
    return scores_of(output[0]) if found is None and isinstance(output, (list, tuple)) and output else found


def checked_scores(output: Any, needed_by: str) -> Tensor:
    """As ``scores_of``, for what cannot do without them.

    Args:
        output: The model's, of a batch.
        needed_by: Who asks.

    Raises:
        TypeError: It holds no tensor with a row for each sample where scores are looked for.

    Example:
        >>> checked_scores({"out": torch.zeros(2, 3)}, "cross-entropy")
        Traceback (most recent call last):
        TypeError: cross-entropy needs the model's scores, and it returns a dict of 'out': expected a tensor with a ...
    """
    found = scores_of(output)
    if isinstance(found, Tensor) and found.dim():
        return found
    held = f" of {', '.join(map(repr, output))}" if isinstance(output, Mapping) else ""
    begins = f" that begins with a {type(output[0]).__name__}" if isinstance(output, (list, tuple)) and output else ""
    told = f"a {type(output).__name__}{held}{begins}"
    raise TypeError(
        f"{needed_by} needs the model's scores, and it returns {told}: expected a tensor with a row for each sample, "
        "such a tensor as its 'logits', or a tuple or list that begins with either"
    )


def with_scores(output: Any, scores: Tensor) -> Any:
    """Other scores in place of a model's: alone, or as the first of as many as there were.

    Example:
        >>> with_scores((torch.zeros(1), "features"), torch.ones(1))
        (tensor([1.]), 'features')
    """
    if not isinstance(output, (list, tuple)) or getattr(output, "logits", None) is not None:
        return scores
    parts = [with_scores(output[0], scores), *output[1:]]
    return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)


def loss_of(output: Any) -> Tensor | None:
    """The loss that a model has computed by itself, if its output holds one."""
    found = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    return found if isinstance(found, Tensor) else None


def _each(part: Any, change: Any) -> Any:
    if isinstance(part, Mapping):
        changed = {name: change(inner) for name, inner in part.items()}
        return changed if type(part) is dict else type(part)(**changed) if hasattr(part, "logits") else changed
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return type(part)(*map(change, part))
    return type(part)(map(change, part)) if isinstance(part, (list, tuple)) else part


def _tensors(part: Any) -> Any:
    """All tensors with samples in them, in order."""
    if isinstance(part, Tensor):
        yield from (part,) if part.dim() else ()
    elif isinstance(part, (Mapping, list, tuple)):
        for inner in part.values() if isinstance(part, Mapping) else part:
            yield from _tensors(inner)
