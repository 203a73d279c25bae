"""What happens to the flat state at each moment of training; the arithmetic itself is ``functional``'s.

Persistent quantities of a bucket: ``fisher``, ``score``, ``loss_change`` (of the open window), ``window_start`` or, in
compact state, ``displacement`` (none of these three where every step is a window), and after the first task
``importance`` and ``anchor``; where settings ask for them, ``task_score`` (apart from the averaged one) and
``window_fisher`` (as the window began). Between the two halves of a step also ``gradient`` (unscaled, without penalty)
and ``before`` (the weights before the step).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rwalk.core import functional as F
from rwalk.core.backends import Backends
from rwalk.core.buckets import Bucket
from rwalk.core.config import RWalkConfig
from rwalk.core.parts import Part
from rwalk.core.sharding import local, over_processes, weights_in_sums

__all__ = ["account", "close_window", "drop_window", "merge_fisher", "open_window", "pull_to_anchor", "read"]


def open_window(parts: Iterable[Part], config: RWalkConfig) -> None:
    """Remember where every parameter stands as a window begins."""
    if config.window == "step":
        return
    for part in parts:
        if config.window == "start":
            part.gather("window_start", part.parameters)
        else:
            part.bucket.require("displacement")[0].zero_()
        if config.fisher_in_score == "window_start":
            fisher, remembered = part.bucket.require("fisher", "window_fisher")
            remembered.copy_(fisher)


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


def account(parts: Iterable[Part], config: RWalkConfig, backends: Backends, step: int) -> None:
    """Bring Fisher and loss change up to date with the step just taken, the run's ``step``-th."""
    updates_fisher = config.fisher_source == "step" and step % config.fisher_every == 0
    for part in parts:
        rates = _weights_of_new(part, config) if updates_fisher else None
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


def close_window(parts: Iterable[Part], config: RWalkConfig, backends: Backends, step: int) -> None:
    """Turn the window's loss change into a score and add it."""
    parts = list(parts)
    damping: float | Tensor = config.damping_value
    if config.damping_scale == "relative":
        damping = _mean_distance(parts, config, backends) * config.damping_value
    for part in parts:
        floor = torch.finfo(part.bucket.dtype).tiny / torch.finfo(part.bucket.dtype).eps
        if config.damping_scale == "relative":  # where nothing moved, ΔL / ε stays finite
            damping = max(damping, floor)
        backends.of(part.bucket).close(part, config, damping=damping, step=step)


def drop_window(buckets: Iterable[Bucket]) -> None:
    """Forget what the open window has gathered."""
    for bucket in buckets:
        if "loss_change" in bucket.flat:
            bucket.flat["loss_change"].zero_()


def _mean_distance(parts: Sequence[Part], config: RWalkConfig, backends: Backends) -> float:
    """The window's distance, averaged over all elements of all parameters (and all processes' shards)."""
    watched = [entry for part in parts for entry in part.watched]
    parameters = [entry.parameter for entry in watched]
    weights = dict(zip(watched, weights_in_sums(parameters), strict=True))
    distance, count = 0.0, 0.0
    for part in parts:
        for weight, alike in part.grouped(weights).items():
            distance += weight * float(backends.of(part.bucket).distance(alike, config))
            count += weight * alike.elements
    sums = torch.tensor([distance, count], dtype=torch.float64)
    total, count = over_processes(sums, parameters, "sum").tolist()
    return float(total / max(count, 1.0))


def _weights_of_new(part: Part, config: RWalkConfig) -> list[float]:
    """For each parameter the weight of its new squared gradient: 1 at its first update (Eq. 6)."""
    settled = config.ewc_alpha
    steady = 1 if not config.alpha_warmup else int(1 / max(settled, 1e-9)) + 1
    from_zero = config.fisher_start == "zero" and not config.alpha_warmup
    if from_zero or all(slot.updates >= steady for slot in part.slots):
        return [settled] * len(part.slots)
    rates = []
    for slot in part.slots:
        warm = 1.0 / (slot.updates + 1)
        rates.append(1.0 if slot.updates == 0 else max(settled, warm) if config.alpha_warmup else settled)
        slot.updates += 1
    return rates


def _start_grown_elements(part: Part, config: RWalkConfig) -> None:
    """Elements that joined by growth see their first gradient, g: their average starts from g² and so stays there."""
    for slot in part.slots:
        if slot.fresh is not None and config.fisher_start == "first":
            fisher, gradient = part.bucket.views("fisher")[slot.name], part.bucket.views("gradient")[slot.name]
            fisher[slot.fresh] = gradient[slot.fresh].to(part.bucket.dtype).square().to(fisher.dtype)
        slot.fresh = None
