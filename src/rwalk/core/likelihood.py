"""What a model says of data, as log-probabilities of samples: whose gradients make the Fisher.

A sample's log-probability is the sum over all that it says: over the tokens of a sequence that count, the outputs of a
regression, the labels of a multi-label problem.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from rwalk.batches import LABEL_COLUMNS, scores_of
from rwalk.errors import RWalkError

__all__ = [
    "Evidence",
    "Kind",
    "Labels",
    "Likelihood",
    "as_outputs",
    "call",
    "checked_class_dim",
    "outputs_of",
    "split",
    "tell",
]

Kind = Literal["categorical", "bernoulli", "gaussian"]
Labels = Literal["sampled", "data", "argmax"]
IGNORED = -100  # the label of positions that do not count, as in torch's cross-entropy
WAYS_OUT = (
    "say what the outputs are with likelihood='categorical', 'bernoulli' or 'gaussian' (and class_dim), or give "
    "log_prob(model, batch, rng), which returns one log-probability a sample"
)


@dataclass(frozen=True)
class Likelihood:
    """How outputs are read as a distribution over labels.

    Attributes:
        kind: ``"categorical"``: scores of classes (softmax). ``"bernoulli"``: one logit a label (sigmoid).
            ``"gaussian"``: means, with variance 1.
        class_dim: Which dimension of the outputs goes over classes.
        shift: Scores at one position speak of the label at the next one, as causal language models' do.
        soft: Labels are probabilities of classes.
    """

    kind: Kind
    class_dim: int = -1
    shift: bool = False
    soft: bool = False

    def draw(self, outputs: Tensor, how: Labels, rng: torch.Generator) -> Tensor:
        """Labels from the model's own distribution, or its most likely ones.

        Args:
            outputs: Shape (B, ...).
            how: ``"sampled"`` or ``"argmax"``.
            rng: On the CPU.

        Raises:
            RWalkError: The most likely label of a Gaussian is its mean, where the gradient vanishes.
        """
        if self.kind == "categorical":
            scores = outputs.movedim(self.class_dim, -1)
            if how == "argmax":
                return scores.argmax(-1)
            chances = scores.detach().float().softmax(-1).cpu()
            drawn = torch.multinomial(chances.flatten(0, -2), 1, generator=rng)
            return drawn.view(scores.shape[:-1]).to(outputs.device)
        if self.kind == "bernoulli":
            if how == "argmax":
                return (outputs > 0).to(outputs.dtype)
            return torch.bernoulli(outputs.detach().float().sigmoid().cpu(), generator=rng).to(outputs)
        if how == "argmax":
            raise RWalkError(
                "labels='argmax' of a regression is its own output, where every gradient is zero: take 'sampled'"
            )
        return outputs.detach() + torch.randn(outputs.shape, generator=rng).to(outputs)

    def log_prob(self, outputs: Tensor, labels: Tensor, counted: Tensor | None) -> Tensor:
        """One log-probability a sample, up to a constant.

        Args:
            outputs: Shape (B, ...).
            labels: What the outputs speak of, position by position.
            counted: Which positions count (bool, in the labels' shape); all of them if None.

        Returns:
            Shape (B,).
        """
        if self.kind == "categorical":
            scores = functional.log_softmax(outputs.movedim(self.class_dim, -1), -1)
            if self.soft and labels.is_floating_point():  # those that were drawn are classes
                found = (scores * labels.movedim(self.class_dim, -1)).sum(-1)
            else:
                found = scores.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        elif self.kind == "bernoulli":
            found = -functional.binary_cross_entropy_with_logits(outputs, labels.to(outputs), reduction="none")
        else:
            found = -0.5 * (outputs - labels.to(outputs)).square()
        if counted is not None:
            found = found * counted
        return found.flatten(1).sum(1) if found.dim() > 1 else found

    def positions(
        self, outputs: Tensor, batch: Any, target: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Outputs, the data's labels for them, and which positions count, all brought to where they belong together."""
        counted: Tensor | None = None
        if self.kind == "categorical" and not self.soft:
            if target is not None:
                if self.shift:
                    outputs, target = outputs[:, :-1], target[:, 1:]
                counted = target != IGNORED
            elif isinstance(batch, Mapping) and outputs.dim() == 3:
                mask = batch.get("attention_mask")
                counted = mask.bool() if isinstance(mask, Tensor) and mask.shape == outputs.shape[:2] else None
        return outputs, target, counted

    def check(self, outputs: Tensor, labels: Tensor, counted: Tensor | None) -> None:
        """Refuse labels that are none of the outputs' classes.

        Args:
            outputs: Shape (B, ...).
            labels: The data's, position by position.
            counted: Which positions count; all of them if None.

        Raises:
            RWalkError: A label that counts is below 0, or at least the number of classes.
        """
        if self.kind != "categorical" or self.soft:
            return
        there, classes = labels if counted is None else labels[counted], outputs.shape[self.class_dim]
        if there.numel() and not 0 <= int(there.min()) <= int(there.max()) < classes:
            raise RWalkError(
                f"labels go from {int(there.min())} to {int(there.max())}, but the outputs have {classes} classes: "
                f"expected 0 to {classes - 1}, or {IGNORED} where none counts"
            )


class Evidence:
    """What all batches together say of numbers as labels, of which the first one told the kind."""

    def __init__(self) -> None:
        self._may_be_chances = True  # of classes: they add up to 1 in every sample
        self._shape: tuple[int, ...] | None = None

    def add(self, target: Tensor, outputs: Tensor, told: Likelihood) -> None:
        """Take a batch's labels into account.

        Raises:
            RWalkError: They are not of the kind that was told by those before.
        """
        if told.kind == "categorical":
            return
        values = target.to(outputs)
        other = values[~((values == 0) | (values == 1))]
        if told.kind == "bernoulli" and other.numel():
            raise RWalkError(
                f"labels were all 0 or 1, as marks of independent labels are, and now one is {float(other[0]):.6g}; "
                f"{WAYS_OUT}"
            )
        self._may_be_chances = self._may_be_chances and _adds_up(values, outputs)
        self._shape = tuple(target.shape)

    def check(self) -> None:
        """Refuse labels that are of two kinds after all.

        Raises:
            RWalkError: They are.
        """
        if self._shape is not None and self._may_be_chances:
            raise RWalkError(_of_two_kinds(self._shape))


def as_outputs(target: Tensor, outputs: Tensor) -> Tensor:
    """Labels in the outputs' shape.

    Raises:
        RWalkError: There are not as many.
    """
    if target.numel() != outputs.numel():
        shapes = f"outputs of shape {tuple(outputs.shape)} and labels of shape {tuple(target.shape)}"
        raise RWalkError(f"{shapes} do not belong together: labels='data' needs one number for each output")
    return target.view_as(outputs)


def split(batch: Any) -> tuple[Any, Tensor | None]:
    """What the model is called with, and the data's labels if the batch has any.

    Args:
        batch: A tensor x, a sequence ``(x, y, ...)``, or a mapping whose labels are called ``labels`` or ``label``.

    Raises:
        RWalkError: It is something else.
    """
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, Mapping):
        target = next((batch[name] for name in LABEL_COLUMNS if name in batch), None)
        return {name: value for name, value in batch.items() if name not in LABEL_COLUMNS}, target
    if isinstance(batch, (list, tuple)) and batch:
        target = batch[1] if len(batch) > 1 else None
        if target is None or isinstance(target, Tensor):
            return batch[0], target
    raise RWalkError(
        f"a batch is a {type(batch).__name__}: expected a tensor x, a pair (x, y) or a dictionary with the model's "
        "arguments and 'labels'; give log_prob(model, batch, rng) for anything else"
    )


def call(model: Any, inputs: Any) -> Any:
    """The model on its inputs: a mapping holds its arguments by name."""
    return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)


def outputs_of(found: Any) -> Tensor:
    """The tensor in what a model returns: itself, its ``logits``, or the first of several.

    Raises:
        RWalkError: There is none.
    """
    chosen = scores_of(found)
    if not isinstance(chosen, Tensor) or not chosen.is_floating_point() or chosen.dim() < 1:
        raise RWalkError(f"the model returns a {type(found).__name__} without scores: {WAYS_OUT}")
    return chosen


def tell(
    outputs: Tensor, target: Tensor | None, *, kind: Kind | None, class_dim: int | None, loss: float | None
) -> Likelihood:
    """What the outputs are, from their shape, the labels' shape and dtype, and the model's own loss.

    Args:
        outputs: Shape (B, ...).
        target: The data's labels.
        kind: What the user says they are.
        class_dim: What the user says of it.
        loss: What the model itself computed from the labels; tells whether it shifts them.

    Raises:
        RWalkError: It cannot be told.
        ValueError: ``class_dim`` is none of the outputs' dimensions, or that of the samples.
    """
    if outputs.dim() == 1:
        outputs = outputs.unsqueeze(1)
    class_dim = checked_class_dim(class_dim, outputs)
    if kind in ("bernoulli", "gaussian"):
        return Likelihood(kind)
    if target is None:
        return _without_labels(outputs, kind, class_dim)
    one_logit = outputs.dim() == 2 and outputs.shape[1] == 1 and kind is None and class_dim is None
    if target.is_floating_point() or (one_logit and target.numel() == outputs.numel()):
        return _of_numbers(outputs, target.to(outputs), kind, class_dim)
    dims = [dim for dim in range(1, outputs.dim()) if _without(outputs.shape, dim) == tuple(target.shape)]
    if class_dim is not None:
        dims = [class_dim]
    if len(dims) != 1:
        shapes = f"outputs of shape {tuple(outputs.shape)} and labels of shape {tuple(target.shape)}"
        raise RWalkError(f"{shapes}: which dimension goes over classes cannot be told; {WAYS_OUT}")
    found = Likelihood("categorical", dims[0])
    return found if loss is None else _as_the_model_does(found, outputs, target, loss)


def checked_class_dim(class_dim: int | None, outputs: Tensor) -> int | None:
    """The dimension that goes over classes, counted from the front; None if nothing is said of it.

    Raises:
        ValueError: The outputs have no such dimension, or it is that of the samples.

    Example:
        >>> checked_class_dim(-1, torch.zeros(8, 5, 4))
        2
    """
    if class_dim is None:
        return None
    known = isinstance(class_dim, int) and not isinstance(class_dim, bool)
    if not known or not -outputs.dim() <= class_dim < outputs.dim() or class_dim % outputs.dim() == 0:
        raise ValueError(
            f"class_dim={class_dim!r}: expected a dimension of the outputs, shape {tuple(outputs.shape)}, after the "
            "first, which goes over samples"
        )
    return class_dim % outputs.dim()


def _without_labels(outputs: Tensor, kind: Kind | None, class_dim: int | None) -> Likelihood:
    if outputs.dim() == 2 and outputs.shape[1] > 1:
        return Likelihood("categorical", 1)
    if class_dim is not None:
        return Likelihood("categorical", class_dim)
    if outputs.dim() == 3 and kind == "categorical":
        return Likelihood("categorical", 2)
    raise RWalkError(f"outputs of shape {tuple(outputs.shape)} without labels could be anything: {WAYS_OUT}")


def _of_numbers(outputs: Tensor, target: Tensor, kind: Kind | None, class_dim: int | None) -> Likelihood:
    if target.shape != outputs.shape and target.numel() != outputs.numel():
        shapes = f"outputs of shape {tuple(outputs.shape)} and labels of shape {tuple(target.shape)}"
        raise RWalkError(f"{shapes} do not belong together; {WAYS_OUT}")
    if kind == "categorical":
        return Likelihood("categorical", 1 if class_dim is None else class_dim, soft=True)
    if len(target) > 1 and _adds_up(target, outputs):  # of a single one ``Evidence`` waits for others
        raise RWalkError(_of_two_kinds(tuple(target.shape)))
    return Likelihood("bernoulli" if bool(((target == 0) | (target == 1)).all()) else "gaussian")


def _adds_up(target: Tensor, outputs: Tensor) -> bool:
    """Whether every sample's numbers may be probabilities of classes."""
    if outputs.dim() < 2 or outputs.shape[1] < 2 or not target.numel() or target.numel() != outputs.numel():
        return False
    low, high = target.aminmax()
    sums = target.reshape(outputs.shape).sum(1)
    return bool(low >= 0) and bool(high <= 1) and torch.allclose(sums, sums.new_ones(()))


def _of_two_kinds(shape: tuple[int, ...]) -> str:
    return (
        f"labels of shape {shape} add up to 1 in every sample: they may be probabilities of classes or marks of "
        f"independent labels; {WAYS_OUT}"
    )


def _as_the_model_does(found: Likelihood, outputs: Tensor, target: Tensor, loss: float) -> Likelihood:
    """The model's own loss tells whether its scores speak of the label at their own position or of the next one.

    It is right to what its outputs' dtype can tell: some models compute it in that.
    """
    candidates = [found]
    if outputs.dim() == 3 and found.class_dim == 2:
        candidates.append(Likelihood("categorical", 2, shift=True))
    off: dict[Likelihood, float] = {}
    for candidate in candidates:
        scores, labels, counted = candidate.positions(outputs.float(), {}, target)
        if labels is not None and counted is not None:
            mean = -float(candidate.log_prob(scores, labels, counted).sum()) / max(int(counted.sum()), 1)
            off[candidate] = abs(mean - loss)
    nearest = min(off, key=off.__getitem__, default=found)
    if off.get(nearest, math.inf) <= max(1e-5, abs(loss) * max(1e-3, 2.0 * torch.finfo(outputs.dtype).eps)):
        return nearest
    raise RWalkError(
        f"the model's own loss, {loss:.6g}, is no cross-entropy of its logits and labels that rwalk knows; {WAYS_OUT}"
    )


def _without(shape: torch.Size, dim: int) -> tuple[int, ...]:
    return (*shape[:dim], *shape[dim + 1 :])
