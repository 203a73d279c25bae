"""λ by trial: train on the new task under each, and look what became of the old answers and the new ones."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rwalk.batches import to_device
from rwalk.core.config import RWalkConfig
from rwalk.core.likelihood import call, outputs_of, split, tell
from rwalk.core.regularizer import RWalk
from rwalk.core.samples import own_loss
from rwalk.errors import RWalkError
from rwalk.module_state import in_eval_mode

__all__ = ["GRID", "Choice", "Trial", "choose_lambda"]

log = logging.getLogger(__name__)

#: From no penalty at all to one that holds almost everything.
GRID = (0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0)
IGNORED = -100


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
    old: Sequence[Any],
    new: Sequence[Any],
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
        grid: Strengths.
        config: All other settings; ``RWalkConfig()`` if None.
        options: Of ``RWalk.protect``.

    Returns:
        The choice and its trials.

    Raises:
        ValueError: ``grid``, ``old`` or ``new`` is empty, or a strength out of range.
        RWalkError: As ``RWalk.protect``; new batches have no labels.
    """
    config, strengths = config or RWalkConfig(), [float(strength) for strength in grid]
    for name, given in (("grid", strengths), ("old", old), ("new", new)):
        if not len(given):
            raise ValueError(f"{name} is empty: expected at least one")
    settings = [config.replace(ewc_lambda=strength) for strength in strengths]  # refuses what is out of range
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


@torch.no_grad()
def _answers(model: nn.Module, batches: Iterable[Any], class_dim: int | None) -> Tensor:
    device, dim = next(model.parameters()).device, -1 if class_dim is None else class_dim
    with in_eval_mode(model):
        found = [outputs_of(call(model, split(to_device(batch, device))[0])).argmax(dim).flatten() for batch in batches]
    return torch.cat(found)


@torch.no_grad()
def _accuracy(model: nn.Module, batches: Iterable[Any], class_dim: int | None) -> float:
    device, right, count = next(model.parameters()).device, 0, 0
    with in_eval_mode(model):
        for batch in batches:
            batch = to_device(dict(batch) if isinstance(batch, Mapping) else batch, device)  # noqa: PLW2901
            inputs, labels = split(batch)
            if labels is None:
                raise RWalkError("new batches need labels: pairs (x, y), or dictionaries with 'labels'")
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
    return right / count if count else 0.0
