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

from rwalk.batches import refuse_single
from rwalk.core.asking import NONE_COUNTS, accuracy, answers, class_dims
from rwalk.core.checking import check_state
from rwalk.core.config import RWalkConfig
from rwalk.core.likelihood import IGNORED, split
from rwalk.core.regularizer import RWalk
from rwalk.errors import RWalkError

__all__ = ["GRID", "SHARES", "Choice", "Trial", "choose_lambda"]

log = logging.getLogger(__name__)

#: From no penalty at all to one that holds almost everything.
GRID = (0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0)
#: The same where importances are shares (``scaling="sum"``), which add up to 1.
SHARES = (0.0, 400.0, 4000.0, 40000.0, 400000.0, 4000000.0)
NO_LABELS = "new batches need labels: pairs (x, y), or dictionaries with 'labels'"


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
    grid: Iterable[float] | None = None,
    config: RWalkConfig | None = None,
    state: Mapping[str, Any] | None = None,
    **options: Any,
) -> Choice:
    """Try strengths without old labels: hold a copy to what it knows, train it on the new task, ask both ways.

    One training on the new task for each strength; the model itself is not touched. Every trial starts from the same
    state of torch's generator. A model that nobody watched is protected by ``old``; one that was, by its ``state``.

    Args:
        model: Knows the old task; its outputs are scores of classes, over ``class_dim``; None: the dimension that the
            labels of ``new`` tell.
        optimizer: Makes an optimizer for a copy.
        train: Trains a copy on the new task with its optimizer.
        old: Batches of what it knows, without labels or with: they protect it, unless there is a ``state``, and its
            answers to them are to stay.
        new: Batches (x, y), or dictionaries with ``labels``, of the new task, best such that ``train`` does not see.
            Here and in ``old``, batches that are no sequence, as a loader's, are read once and kept.
        grid: Strengths; None: 0 and 1 to 10,000, each ten times the one before, or 0 and 400 to 4,000,000 where
            importances are shares: by ``scaling="sum"`` (as in ``.laplace()``) of ``config``, or of what ``state`` has.
        config: All other settings; None: those of ``state``, else ``RWalkConfig()``.
        state: What watched the model so far, as ``RWalk.state_dict`` gives it after a task's end. Trials go on from it.
        options: Of ``RWalk.protect``; with a ``state``, ``class_dim`` alone.

    Returns:
        The choice and its trials.

    Raises:
        ValueError: ``grid``, ``old`` or ``new`` is empty, or a strength is no number or out of range.
        TypeError: ``old`` or ``new`` is a single batch; a ``state`` and options of ``RWalk.protect`` besides.
        StateError: ``state`` is not rwalk's, or does not fit the model.
        RWalkError: As ``RWalk.protect``; new batches have no labels, or none that counts; ``state`` knows no task.
    """
    if state is None:
        config = scaled_by = config or RWalkConfig()
    else:
        scaled_by = _watched_under(state, options)
        config = config or scaled_by
    strengths = _strengths((SHARES if scaled_by.scaling == "sum" else GRID) if grid is None else grid)
    old, new = _listed("old", old), _listed("new", new)
    for name, given in (("grid", strengths), ("old", old), ("new", new)):
        if not len(given):
            raise ValueError(f"{name} is empty: expected at least one")
    settings = [config.replace(ewc_lambda=strength) for strength in strengths]  # refuses what is out of range
    _check_labels(new)
    class_dim = options.get("class_dim")
    told = class_dims(model, new) if class_dim is None else None
    before, generator, trials = answers(model, old, class_dim, told), torch.get_rng_state(), []
    for setting in settings:
        torch.set_rng_state(generator)
        trained = copy.deepcopy(model)
        moving = optimizer(trained)
        rwalk = RWalk(trained, moving, setting)
        if state is None:
            rwalk.protect(old, **options)
        else:
            rwalk.load_state_dict(state)
        train(trained, moving)
        rwalk.detach()
        agreement = float((answers(trained, old, class_dim, told) == before).float().mean())
        trials.append(Trial(setting.ewc_lambda, agreement, accuracy(trained, new, class_dim)))
        log.info("choose_lambda: %s", trials[-1])
    best = max(trials, key=lambda trial: (trial.agreement + trial.accuracy, -trial.ewc_lambda))
    return Choice(best.ewc_lambda, tuple(trials))


def _watched_under(state: Mapping[str, Any], options: Mapping[str, Any]) -> RWalkConfig:
    """The settings of a state that a trial can go on from."""
    config = check_state(state)
    if not state["tasks"]:
        raise RWalkError("state knows no task that has ended: take it after rwalk.consolidate()")
    if extra := sorted(options.keys() - {"class_dim"}):
        raise TypeError(
            f"{', '.join(extra)}: of RWalk.protect, whose place the state takes: leave out one or the other"
        )
    return config


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
