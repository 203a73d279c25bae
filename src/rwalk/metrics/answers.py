"""What of a batch's outputs and targets can be counted: which targets, and which answers are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Answers", "class_scores", "counted", "is_class_target"]


def is_class_target(targets: Any) -> bool:
    """Whether targets may be class numbers: whole ones, and no truth values."""
    return isinstance(targets, Tensor) and not (
        targets.is_floating_point() or targets.is_complex() or targets.dtype is torch.bool
    )


def class_scores(scores: Any, targets: Any, *, classes_last: bool = False) -> Tensor | None:
    """The scores of classes that class numbers answer to.

    Args:
        scores: Shape (B, C, ...) as torch's losses take them, or (B, ..., C).
        targets: Class numbers, shape (B, ...).
        classes_last: Which of the two it is where both would fit.

    Returns:
        Shape (B, C, ...); None where the two are no classification: targets that are no class numbers (regression,
        several labels, soft labels), shapes that do not match, or a single output.

    Example:
        >>> class_scores(torch.zeros(4, 7, 3), torch.zeros(4, 7, dtype=torch.int64)).shape
        torch.Size([4, 3, 7])
        >>> class_scores(torch.zeros(4, 3), torch.zeros(4, 3)) is None
        True
    """
    if not is_class_target(targets) or not isinstance(scores, Tensor) or scores.dim() < 2:
        return None
    first = scores.shape[:1] + scores.shape[2:] == targets.shape
    last = scores.shape[:-1] == targets.shape
    if not (first or last):
        return None
    found = scores.movedim(-1, 1) if last and (classes_last or not first) else scores
    return found if found.shape[1] > 1 else None


def counted(targets: Tensor, ignore_index: int | None = None) -> Tensor:
    """Which class numbers count: those from 0, except for ``ignore_index``; bool, in the shape of the targets.

    Example:
        >>> counted(torch.tensor([2, -100, 0, 1]), ignore_index=1)
        tensor([ True, False,  True, False])
    """
    mask = targets >= 0
    return mask if ignore_index is None or ignore_index < 0 else mask & (targets != ignore_index)


@dataclass(frozen=True)
class Answers:
    """What a batch showed: what is counted of it, and what other metrics take.

    Attributes:
        loss: Sum of the loss over what counts, a scalar.
        count: How many targets count: each sample, or each class number that does.
        right: How many of them got the largest score, as long as that is finite; None where there is no accuracy.
        answers: Scores of classes, shape (N, C), of the N class numbers that count; elsewhere the scores as they are;
            None if they are no tensor.
        targets: In like manner: class numbers, shape (N,), or as they are.
    """

    loss: Tensor
    count: int | Tensor
    right: Tensor | None = None
    answers: Tensor | None = None
    targets: Tensor | None = None

    @classmethod
    def of(
        cls,
        scores: Any,
        targets: Any,
        loss: Tensor,
        samples: int,
        *,
        ignore_index: int | None = None,
        classes_last: bool = False,
        aligned: bool = True,
        gather: Callable[[Tensor], Tensor] | None = None,
        keep: bool = False,
    ) -> Answers:
        """Look at a batch.

        Args:
            scores: What the model says of the targets.
            targets: What it should say.
            loss: Mean of the loss over what counts, a scalar.
            samples: In the batch.
            ignore_index: Class number that does not count.
            classes_last: See ``class_scores``.
            aligned: Whether each score answers to the target in its place.
            gather: Puts samples of all processes together.
            keep: Also keep answers and targets, for other metrics.
        """
        together = _as_it_is if gather is None else gather
        losses = together(loss.detach().expand(samples))
        classes = class_scores(scores, targets, classes_last=classes_last)
        if classes is None:
            tensors = isinstance(scores, Tensor) and isinstance(targets, Tensor)
            pair = (together(scores.detach()), together(targets)) if keep and tensors else (None, None)
            return cls(losses.sum(), len(losses), None, *pair)
        mask = counted(targets, ignore_index)
        counts = together(_each(mask))
        total = torch.where(counts > 0, losses * counts, 0.0).sum()  # the loss of a sample without any is NaN
        if not aligned:
            return cls(total, counts.sum())
        said = (classes.argmax(dim=1) == targets) & classes.amax(dim=1).isfinite()  # of NaN, class 0 would be
        right = together(_each(said & mask)).sum()
        if not keep:
            return cls(total, counts.sum(), right)
        everywhere, numbers = together(classes.detach()), together(targets)
        chosen = counted(numbers, ignore_index)
        return cls(total, counts.sum(), right, everywhere.movedim(1, -1)[chosen], numbers[chosen])


def _each(mask: Tensor) -> Tensor:
    """How many are true in each sample."""
    return mask.flatten(1).sum(1) if mask.dim() > 1 else mask


def _as_it_is(values: Tensor) -> Tensor:
    return values
