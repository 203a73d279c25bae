"""What happens to the flat state at each moment of training; the arithmetic itself is ``functional``'s.

Persistent quantities of a bucket: ``fisher``, ``score``, ``loss_change`` (of the open window), ``window_start`` or, in
compact state, ``displacement`` (none of these three where every step is a window), and after the first task
``importance`` and ``anchor``; where settings ask for them, ``task_score`` (apart from the averaged one) and
``window_fisher`` (as the window began). Between the two halves of a step also ``gradient`` (unscaled, without penalty)
and ``before`` (the weights before the step).

A step that is sure to be taken is accounted for in one pass, before it (``advance``): Eq. 7 summed by parts needs the
weights only there. Its gradient is kept until the next step settles it, and its square may enter the Fisher with the
next one's: each value is read and written every other step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rwalk.core import functional as F
from rwalk.core.backends import Backends
from rwalk.core.config import RWalkConfig
from rwalk.core.parts import Part
from rwalk.core.sharding import local

__all__ = [
    "account",
    "advance",
    "merge_fisher",
    "pull_to_anchor",
    "read",
    "settle",
    "take_back",
]


def read(
    parts: Iterable[Part],
    config: RWalkConfig,
    backends: Backends,
    *,
    grad_scale: Tensor | float | None,
    instead: Mapping[nn.Parameter, Tensor] | None,
    penalised: bool,
) -> None:
    """Keep gradients (or what is to be measured instead) and weights; add the penalty's gradient to ``.grad``."""
    for part in parts:
        measured = None
        if instead is not None:
            measured = [_measured(local(entry.parameter), instead.get(entry.parameter)) for entry in part.watched]
        backend = backends.of(part.bucket)
        backend.read(part, config, grad_scale=grad_scale, measured=measured, penalised=penalised)
        if penalised:
            part.give_back()
        part.release()


def _measured(parameter: Tensor, gradient: Tensor | None) -> Tensor:
    if gradient is None:
        return torch.zeros_like(parameter, memory_format=torch.contiguous_format)
    return local(gradient).contiguous()


def pull_to_anchor(parts: Iterable[Part], config: RWalkConfig, backends: Backends, optimizer: Optimizer) -> None:
    """Take the penalty's proximal step on the parameters, with each group's learning rate."""
    lrs = [float(group["lr"]) for group in optimizer.param_groups]
    for part in parts:
        backends.of(part.bucket).pull(part, config, rates=[lrs[entry.group] for entry in part.watched])


def advance(
    parts: Iterable[Part],
    config: RWalkConfig,
    backends: Backends,
    *,
    step: int,
    opens: bool,
    closes: bool,
    penalised: bool,
) -> None:
    """Account for a step before it is taken.

    Args:
        parts: The parameters; the steps of theirs that are not settled are settled.
        config: All settings.
        backends: Run the equations.
        step: The run's number of the step.
        opens: It is its window's first.
        closes: It is its window's last, before whose end the Fisher must be complete.
        penalised: Whether there is a penalty to add to ``.grad``.
    """
    updates_fisher = _updates_fisher(config, step)
    for part in parts:
        part.advanced = False
    for part in parts:
        late = None if opens else part.owed
        waits = updates_fisher and late is None and config.fisher_every == 1 and not closes
        rates, part.counted = _weights_of_new(part, config) if updates_fisher else (None, False)
        now = None if waits else rates
        try:
            backends.of(part.bucket).advance(part, config, rates=now, late=late, opens=opens, penalised=penalised)
        except BaseException:
            _uncount(part)
            raise
        part.advanced, part.owed, part.entered = True, (rates if waits else None), now
        if penalised:
            part.give_back()
        part.release()


def settle(parts: Iterable[Part], config: RWalkConfig, backends: Backends) -> None:
    """Account for the step that ``advance`` saw begin, which the weights show by now."""
    for part in parts:
        backends.of(part.bucket).settle(part, config, late=part.owed)
        part.owed = None


def take_back(parts: Iterable[Part], backends: Backends) -> None:
    """Undo ``advance`` for a step that is not taken; what the steps before it have left is settled later."""
    for part in parts:
        if part.advanced:
            backends.of(part.bucket).take_back(part, rates=part.entered)
            part.owed = part.entered = None
            part.advanced = False
            _uncount(part)


def account(parts: Iterable[Part], config: RWalkConfig, backends: Backends, step: int) -> None:
    """Bring Fisher and loss change up to date with the step just taken, the run's ``step``-th."""
    updates_fisher = _updates_fisher(config, step)
    for part in parts:
        rates = _weights_of_new(part, config)[0] if updates_fisher else None
        if updates_fisher:
            _start_grown_elements(part, config)
        backends.of(part.bucket).account(part, config, rates=rates, step=step)


def merge_fisher(parts: Iterable[Part], estimate: dict[str, Tensor], config: RWalkConfig) -> None:
    """Merge a Fisher estimated in a pass of its own into the moving one."""
    for part in parts:
        for slot, fisher in zip(part.slots, part.views("fisher"), strict=True):
            first = slot.updates == 0 and config.fisher_start == "first"
            found = estimate[slot.name].to(fisher.dtype)
            F.fisher_merge(fisher, found, 1.0 if first else config.ewc_alpha, out=fisher)
            if slot.fresh is not None and config.fisher_start == "first":
                fisher[slot.fresh] = found[slot.fresh]
            slot.fresh = None
            slot.updates += 1


def _updates_fisher(config: RWalkConfig, step: int) -> bool:
    return config.fisher_source == "step" and step % config.fisher_every == 0


def _weights_of_new(part: Part, config: RWalkConfig) -> tuple[list[float], bool]:
    """For each parameter the weight of its new squared gradient: 1 at its first update (Eq. 6); and if it counted."""
    settled = config.ewc_alpha
    if _is_steady(part, config):
        if part.steady is None or part.steady[:1] != [settled]:
            part.steady = [settled] * len(part.slots)
        return part.steady, False
    rates = []
    for slot in part.slots:
        warm = 1.0 / (slot.updates + 1)
        rates.append(1.0 if slot.updates == 0 else max(settled, warm) if config.alpha_warmup else settled)
        slot.updates += 1
    return rates, True


def _uncount(part: Part) -> None:
    if part.counted:
        part.counted = False
        for slot in part.slots:
            slot.updates -= 1


def _is_steady(part: Part, config: RWalkConfig) -> bool:
    """Whether all of them have had so many updates that the weight of the new one stays as it is."""
    if part.steady is not None and config.fisher_boundary == "keep":
        return True
    if config.fisher_start == "zero" and not config.alpha_warmup:
        return True
    last = 1 if not config.alpha_warmup else int(1 / max(config.ewc_alpha, 1e-9)) + 1
    return all(slot.updates >= last for slot in part.slots)


def _start_grown_elements(part: Part, config: RWalkConfig) -> None:
    """Elements that joined by growth see their first gradient, g: their average starts from g² and so stays there."""
    for slot in part.slots:
        if slot.fresh is not None and config.fisher_start == "first":
            fisher, gradient = part.bucket.views("fisher")[slot.name], part.bucket.views("gradient")[slot.name]
            fisher[slot.fresh] = gradient[slot.fresh].to(part.bucket.dtype).square().to(fisher.dtype)
        slot.fresh = None
