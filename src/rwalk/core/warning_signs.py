"""What is likely to be wrong with a training, told by what RWalk has and has not seen."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim import Optimizer

from rwalk.core.hooks import base_optimizer
from rwalk.core.sharding import local
from rwalk.core.strength import instability
from rwalk.core.tracking import Tracker

__all__ = ["signs"]

#: Two networks trained from different starts are about √2 of their norm apart, a copy that learned a task much less.
NEAR = 0.5


@torch.no_grad()
def signs(tracker: Tracker, optimizer: Optimizer, tasks: int, task_steps: int) -> list[str]:
    """What a report should warn of, beside what its figures say.

    Args:
        tracker: The parameters, their state and the settings.
        optimizer: What is followed.
        tasks: That have ended.
        task_steps: Steps of the present one.
    """
    found = [_trained_by_another(tracker, optimizer) if not task_steps else None]
    if not task_steps and tasks and found == [None]:
        found.append(_moved_unseen(tracker))
    if tasks:
        found += [instability(tracker, optimizer, tracker.peaks("importance")), _new_outputs(tracker)]
    return [sign for sign in found if sign is not None]


def _trained_by_another(tracker: Tracker, optimizer: Optimizer) -> str | None:
    """No step was seen: is another optimizer at work on these weights, or on a copy of them?"""
    own = {id(entry.parameter) for entry in tracker.entries}
    for other in _optimizers_at_work():
        if other is optimizer or base_optimizer(other) is optimizer:
            continue
        moved = [parameter for group in other.param_groups for parameter in group["params"]]
        name = type(other).__name__
        if any(id(parameter) in own for parameter in moved):
            return (
                f"no step of this task was seen, and another optimizer ({name}) moves the model's weights: follow it "
                "by rwalk.attach(optimizer), after rwalk.detach()"
            )
        if _are_copies(moved, [entry.parameter for entry in tracker.entries]):
            return (
                f"no step of this task was seen, and an optimizer ({name}) trains weights that are nearly this "
                "model's: if that is a copy of it (deepcopy, pickle), make RWalk from the copy and its optimizer, or "
                "rwalk.attach(optimizer, model)"
            )
    return None


def _optimizers_at_work() -> Iterator[Optimizer]:
    gc.collect()  # what is out of reach is not at work
    for found in gc.get_objects():
        if issubclass(type(found), Optimizer) and hasattr(found, "param_groups"):
            parameters = [parameter for group in found.param_groups for parameter in group["params"]]
            if found.state or any(parameter.grad is not None for parameter in parameters):
                yield found


def _are_copies(others: list[Tensor], own: list[Tensor]) -> bool:
    """Whether these weights lie nearer to the model's than those of a network that was trained from its own start."""
    if [other.shape for other in others] != [mine.shape for mine in own]:
        return False
    apart = whole = 0.0
    for other, mine in zip(others, own, strict=True):
        here = local(mine).detach()
        apart += float((local(other).detach().to(here) - here).float().square().sum())
        whole += float(here.float().square().sum())
    return apart < NEAR**2 * whole


def _moved_unseen(tracker: Tracker) -> str | None:
    """The last task ended with every anchor at its weight, unless past anchors or weights were averaged in."""
    if tracker.config.combine in ("sum", "mean") or tracker.config.anchor_at == "average":
        return None
    for cohort in tracker.resident():
        for entry, anchor in zip(cohort.entries, cohort.views("anchor"), strict=True):
            if entry.last_task is not None and not torch.equal(local(entry.parameter).to(anchor.dtype), anchor):
                return (
                    f"{entry.name!r} has moved since the last task ended and no step was seen: its weights were "
                    "replaced, or something else than the optimizer that RWalk follows trains them"
                )
    return None


def _new_outputs(tracker: Tracker) -> str | None:
    grown = [entry.name for entry in tracker.entries if entry.grew]
    if not grown:
        return None
    return (
        f"{grown[0]!r} has grown since the last task. If its new rows are classes beside the old ones, no importance "
        "keeps the old ones from being outvoted: keep some exemplars of them (rwalk.replay) and mix them in"
    )
