"""λ by trial: train on the new task under each, and look what became of the old answers and the new ones."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rwalk.batches import refuse_single, to_device
from rwalk.core.config import RWalkConfig
from rwalk.core.likelihood import IGNORED, call, checked_class_dim, outputs_of, split, tell
from rwalk.core.regularizer import RWalk
from rwalk.core.samples import own_loss
from rwalk.errors import RWalkError
from rwalk.module_state import in_eval_mode

__all__ = ["GRID", "Choice", "Trial", "choose_lambda"]

log = logging.getLogger(__name__)

#: From no penalty at all to one that holds almost everything.
GRID = (0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0)
NO_LABELS = "new batches need labels: pairs (x, y), or dictionaries with 'labels'"
NONE_COUNTS = f"new has no label that counts, there are none but {IGNORED}: give batches whose answers are known"


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        ewc_lambda: Under which strength.
        agreement: Share of the old samples' answers that are as before, 0 to 1.
        accuracy: Share of the new samples that are answered rightly.
    """

    ewc_lambda: float
    agreement: float
    accuracy: float


@dataclass(frozen=True)
class Choice:
    """What ``choose_lambda`` found.

    Attributes:
        ewc_lambda: The strength with the largest sum of agreement and accuracy; of equal ones the weakest.
        trials: All of them, in the order of the grid.
    """

    ewc_lambda: float
    trials: tuple[Trial, ...]

    def __str__(self) -> str:
        """A table."""
        lines = [f"{'ewc_lambda':>12}{'old kept':>10}{'new right':>11}"]
        for trial in self.trials:
            mark = "  <- chosen" if trial.ewc_lambda == self.ewc_lambda else ""
            lines.append(f"{trial.ewc_lambda:>12g}{trial.agreement:>10.1%}{trial.accuracy:>11.1%}{mark}")
        return "\n".join(lines)


def choose_lambda(
    model: nn.Module,
    optimizer: Callable[[nn.Module], Optimizer],
    train: Callable[[nn.Module, Optimizer], object],
    old: Iterable[Any],
    new: Iterable[Any],
    *,
    grid: Iterable[float] = GRID,
    config: RWalkConfig | None = None,
    **options: Any,
) -> Choice:
    """Try strengths for a model that nobody watched, without old labels: protect a copy, train it, ask both ways.

    One training on the new task for each strength; the model itself is not touched. Every trial starts from the same
    state of torch's generator.

    Args:
        model: Knows the old task; its outputs are scores of classes, over the last dimension or ``class_dim``.
        optimizer: Makes an optimizer for a copy.
        train: Trains a copy on the new task with its optimizer.
        old: Batches of what it knows, without labels or with: they protect it, and its answers to them are to stay.
        new: Batches (x, y), or dictionaries with ``labels``, of the new task, best such that ``train`` does not see.
            Here and in ``old``, batches that are no sequence, as a loader's, are read once and kept.
        grid: Strengths.
        config: All other settings; ``RWalkConfig()`` if None.
        options: Of ``RWalk.protect``.

    Returns:
        The choice and its trials.

    Raises:
        ValueError: ``grid``, ``old`` or ``new`` is empty, or a strength is no number or out of range.
        TypeError: ``old`` or ``new`` is a single batch.
        RWalkError: As ``RWalk.protect``; new batches have no labels, or none that counts.
    """
    config, strengths = config or RWalkConfig(), _strengths(grid)
    old, new = _listed("old", old), _listed("new", new)
    for name, given in (("grid", strengths), ("old", old), ("new", new)):
        if not len(given):
            raise ValueError(f"{name} is empty: expected at least one")
    settings = [config.replace(ewc_lambda=strength) for strength in strengths]  # refuses what is out of range
    _check_labels(new)
    class_dim = options.get("class_dim")
    before, state, trials = _answers(model, old, class_dim), torch.get_rng_state(), []
    for setting in settings:
        torch.set_rng_state(state)
        trained = copy.deepcopy(model)
        moving = optimizer(trained)
        rwalk = RWalk(trained, moving, setting)
        rwalk.protect(old, **options)
        train(trained, moving)
        rwalk.detach()
        agreement = float((_answers(trained, old, class_dim) == before).float().mean())
        trials.append(Trial(setting.ewc_lambda, agreement, _accuracy(trained, new, class_dim)))
        log.info("choose_lambda: %s", trials[-1])
    best = max(trials, key=lambda trial: (trial.agreement + trial.accuracy, -trial.ewc_lambda))
    return Choice(best.ewc_lambda, tuple(trials))


def _strengths(grid: Iterable[float]) -> list[float]:
    try:
        return [float(strength) for strength in grid]
    except (TypeError, ValueError):
        raise ValueError(f"grid={grid!r}: expected strengths, numbers such as (0, 1, 10)") from None


def _listed(name: str, batches: Iterable[Any]) -> Sequence[Any]:
    """Batches that are the same each time they are asked for: a loader may shuffle them."""
    refuse_single(name, batches)
    return batches if isinstance(batches, Sequence) else list(batches)


def _check_labels(batches: Sequence[Any]) -> None:
    """Refuse, before any training, what there is nothing to be counted of."""
    labels = [split(batch)[1] for batch in batches]
    if not all(isinstance(each, Tensor) for each in labels):
        raise RWalkError(NO_LABELS)
    if not any(bool((each != IGNORED).any()) for each in labels if each is not None):
        raise RWalkError(NONE_COUNTS)


@torch.no_grad()
def _answers(model: nn.Module, batches: Iterable[Any], class_dim: int | None) -> Tensor:
    device, found = next(model.parameters()).device, []
    with in_eval_mode(model):
        for batch in batches:
            outputs = outputs_of(call(model, split(to_device(batch, device))[0]))
            dim = checked_class_dim(class_dim, outputs)
            found.append(outputs.argmax(-1 if dim is None else dim).flatten())
    return torch.cat(found)


@torch.no_grad()
def _accuracy(model: nn.Module, batches: Iterable[Any], class_dim: int | None) -> float:
    device, right, count = next(model.parameters()).device, 0, 0
    with in_eval_mode(model):
        for batch in batches:
            batch = to_device(dict(batch) if isinstance(batch, Mapping) else batch, device)  # noqa: PLW2901
            inputs, labels = cast("tuple[Any, Tensor]", split(batch))
            outputs = outputs_of(call(model, inputs))
            told = tell(outputs, labels, kind=None, class_dim=class_dim, loss=own_loss(model, batch))
            if told.kind != "categorical" or told.soft:
                raise RWalkError(
                    f"outputs of shape {tuple(outputs.shape)} and labels of shape {tuple(labels.shape)} are "
                    f"{told.kind}: choose_lambda counts classes; for other tasks, try strengths in your own loop"
                )
            answers = outputs.argmax(told.class_dim)
            if told.shift:  # what is said at one position is of the next
                answers, labels = answers[:, :-1], labels[:, 1:]
            counted = labels != IGNORED
            right += int((answers == labels)[counted].sum())
            count += int(counted.sum())
    if not count:
        raise RWalkError(NONE_COUNTS)
    return right / count
