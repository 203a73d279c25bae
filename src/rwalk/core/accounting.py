"""What happens to the flat state at each moment of training; the arithmetic itself is ``functional``'s.

Persistent quantities of a bucket: ``fisher``, ``loss_change`` (of the open window), ``score``, ``window_start``, and
after the first task ``importance`` and ``anchor``; where settings ask for them, ``task_score`` (apart from the averaged
one) and ``window_fisher`` (as the window began). Between the two halves of a step also ``gradient`` (unscaled, without
penalty) and ``before`` (the weights before the step).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rwalk.core import functional as F
from rwalk.core.buckets import Bucket
from rwalk.core.config import RWalkConfig
from rwalk.core.tracking import Part
from rwalk.errors import RWalkError

__all__ = [
    "account",
    "add_penalty_gradient",
    "close_window",
    "drop_window",
    "freeze",
    "merge_fisher",
    "open_window",
    "pull_to_anchor",
    "read",
]

log = logging.getLogger(__name__)


def open_window(parts: Iterable[Part], config: RWalkConfig) -> None:
    """Remember where every parameter stands as a window begins."""
    for part in parts:
        part.gather("window_start", part.parameters)
        if config.fisher_in_score == "window_start":
            fisher, remembered = part.bucket.require("fisher", "window_fisher")
            remembered.copy_(fisher)


def read(
    parts: Iterable[Part], grad_scale: Tensor | float | None, instead: Mapping[nn.Parameter, Tensor] | None
) -> None:
    """Copy gradients (or what is to be measured instead) and weights before the optimizer changes them."""
    for part in parts:
        measured = (
            part.gradients
            if instead is None
            else [instead.get(entry.parameter, torch.zeros_like(entry.parameter)) for entry in part.watched]
        )
        part.gather("gradient", measured)
        part.gather("before", part.parameters)
        if grad_scale is not None:
            (gradient,) = part.bucket.require("gradient")
            for run in part.runs:
                gradient[run].div_(grad_scale)


def add_penalty_gradient(parts: Iterable[Part], config: RWalkConfig, grad_scale: Tensor | float | None) -> None:
    """Add the penalty's gradient to ``.grad``. ``before`` lends its memory for it and is read again."""
    for part in parts:
        importance, before, anchor = part.bucket.require("importance", "before", "anchor")
        for run in part.runs:
            pull = F.penalty_gradient(importance[run], before[run], anchor[run], config.strength, out=before[run])
            if grad_scale is not None:
                pull.mul_(grad_scale)
        torch._foreach_add_(part.gradients, part.views("before"))
        part.gather("before", part.parameters)


def pull_to_anchor(parts: Iterable[Part], config: RWalkConfig, optimizer: Optimizer) -> None:
    """Take the penalty's proximal step on the parameters, with each group's learning rate."""
    for whole in parts:
        for index, part in whole.by_group().items():
            lr = optimizer.param_groups[index]["lr"]
            for importance, parameter, anchor in zip(
                part.views("importance"), part.parameters, part.views("anchor"), strict=True
            ):
                parameter.copy_(F.proximal_step(importance, parameter.to(anchor.dtype), anchor, config.strength, lr))


def account(parts: Iterable[Part], config: RWalkConfig, step: int) -> None:
    """Bring Fisher and loss change up to date with the step just taken, the run's ``step``-th. Uses ``before`` up."""
    updates_fisher = config.fisher_source == "step" and step % config.fisher_every == 0
    for part in parts:
        fisher, change, gradient, before = part.bucket.require("fisher", "loss_change", "gradient", "before")
        _subtract(part.views("before"), part.parameters)
        for run in part.runs:
            F.loss_change(change[run], gradient[run], before[run], out=change[run])
        if updates_fisher:
            for alpha, runs in _alphas(part, config).items():
                for run in runs:
                    F.fisher_ema(fisher[run], gradient[run], alpha, out=fisher[run])
            _start_grown_elements(part, config)


def merge_fisher(parts: Iterable[Part], estimate: dict[str, Tensor], config: RWalkConfig) -> None:
    """Merge a Fisher estimated in a pass of its own into the moving one."""
    for part in parts:
        for name, fisher in zip(part.names, part.views("fisher"), strict=True):
            slot = part.bucket.slots[name]
            first = slot.updates == 0 and config.fisher_start == "first"
            found = estimate[name].to(fisher.dtype)
            F.fisher_merge(fisher, found, 1.0 if first else config.ewc_alpha, out=fisher)
            if slot.fresh is not None and config.fisher_start == "first":
                fisher[slot.fresh] = found[slot.fresh]
            slot.fresh = None
            slot.updates += 1


def close_window(parts: Iterable[Part], config: RWalkConfig) -> None:
    """Turn the window's loss change into a score and add it. ``window_start`` is used up."""
    parts = list(parts)
    for part in parts:
        _subtract(part.views("window_start"), part.parameters)
        (moved,) = part.bucket.require("window_start")
        measure = "window_fisher" if config.fisher_in_score == "window_start" else "fisher"
        fisher = part.bucket.require(measure)[0] if config.distance == "riemannian" else None
        for run in part.runs:
            within = None if fisher is None else fisher[run]
            F.riemannian_distance(within, moved[run], config.distance_factor, out=moved[run])
    target = "task_score" if config.keeps_task_score else "score"
    dampings = [_damping(parts, config, part.bucket) for part in parts]  # before scores take the distances' place
    for part, damping in zip(parts, dampings, strict=True):
        score, change, distance = part.bucket.require(target, "loss_change", "window_start")
        for run in part.runs:
            gained = F.path_score(change[run], distance[run], damping, out=distance[run])
            if config.rectify == "window":
                gained.clamp_(min=0.0)
            score[run].add_(gained)
            change[run].zero_()


def drop_window(buckets: Iterable[Bucket]) -> None:
    """Forget what the open window has gathered."""
    for bucket in buckets:
        bucket.require("loss_change")[0].zero_()


def freeze(buckets: list[Bucket], residents: list[Part], config: RWalkConfig, tasks_before: int) -> None:
    """Average the scores, build the penalty's importances and drop anchors where the parameters stand."""
    _check_finite(buckets, ("fisher", "score", "task_score") if config.keeps_task_score else ("fisher", "score"))
    for bucket in buckets:
        (score,) = bucket.require("score")
        new = None
        if config.keeps_task_score:
            (new,) = bucket.require("task_score")
            if config.rectify == "task":
                new.clamp_(min=0.0)
        F.average_scores(score, new, tasks_before, config.score_average, out=score)
        if new is not None:
            new.zero_()
    terms = [name for name in ("fisher", "score") if config.terms in ("both", name)]
    extents = {name: _extent([bucket.require(name)[0] for bucket in buckets]) for name in terms}
    for name, (_, high) in extents.items():
        if high <= 0:
            log.warning("consolidate(): the %s of every weight is zero and adds nothing to the penalty", name)
    for bucket in buckets:
        (importance,) = bucket.require("importance")
        importance.zero_()
        for name, (low, high) in extents.items():
            (value,) = bucket.require(name)
            scaled = F.scale(value.clamp(min=0.0), low.to(value), high.to(value), config.scaling)
            F.combine_importance(importance, scaled, out=importance)
    for part in residents:
        part.gather("anchor", part.parameters)
    if config.fisher_boundary == "reset":
        for bucket in buckets:
            bucket.require("fisher")[0].zero_()
            for slot in bucket.slots.values():
                slot.updates = 0


def _check_finite(buckets: Iterable[Bucket], quantities: Iterable[str]) -> None:
    for bucket in buckets:
        for quantity in quantities:
            if not bool(torch.isfinite(bucket.require(quantity)[0]).all()):
                views = bucket.views(quantity).items()
                bad = next(name for name, view in views if not bool(torch.isfinite(view).all()))
                raise RWalkError(
                    f"{quantity} of {bad!r} is not finite: a gradient was inf or NaN. Clip gradients, use "
                    "GradScaler, lower the learning rate, or if the penalty is too strong for it take "
                    "penalty='proximal'; the importances of past tasks are unchanged"
                )


def _extent(tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Smallest and largest non-negative part over tensors that may lie on several devices."""
    low = min((tensor.min().clamp(min=0.0).double().cpu() for tensor in tensors), key=float)
    high = max((tensor.max().clamp(min=0.0).double().cpu() for tensor in tensors), key=float)
    return low, high


def _damping(parts: list[Part], config: RWalkConfig, bucket: Bucket) -> float | Tensor:
    number = torch.finfo(torch.get_default_dtype()).eps if config.damping == "machine" else config.damping
    if config.damping_scale == "absolute":
        return torch.finfo(torch.float32).eps if number is None else number
    sums = [part.bucket.require("window_start")[0][run].sum() for part in parts for run in part.runs]
    total = torch.stack([value.to(bucket.device, bucket.dtype) for value in sums]).sum()
    count = sum(run.stop - run.start for part in parts for run in part.runs)
    relative = 1.0 if number is None else number
    floor = (
        torch.finfo(bucket.dtype).tiny / torch.finfo(bucket.dtype).eps
    )  # where nothing moved, so that ΔL / ε stays finite
    epsilon: Tensor = (total * (relative / count)).clamp(min=floor)
    return epsilon


def _subtract(views: list[Tensor], parameters: list[Tensor]) -> None:
    """``views -= parameters``, in the views' dtype."""
    torch._foreach_sub_(views, [parameter.to(view.dtype) for view, parameter in zip(views, parameters, strict=True)])


def _alphas(part: Part, config: RWalkConfig) -> dict[float, list[slice]]:
    """The stretches to update with each weight of the new term: 1 at a parameter's first update (Eq. 6)."""
    slots = [part.bucket.slots[name] for name in part.names]
    settled = config.ewc_alpha
    steady = 1 if not config.alpha_warmup else int(1 / max(settled, 1e-9)) + 1
    if all(slot.updates >= steady for slot in slots) or (config.fisher_start == "zero" and not config.alpha_warmup):
        return {settled: part.runs}
    groups: dict[float, list[str]] = {}
    for slot in slots:
        warm = 1.0 / (slot.updates + 1)
        alpha = 1.0 if slot.updates == 0 else max(settled, warm) if config.alpha_warmup else settled
        groups.setdefault(alpha, []).append(slot.name)
        slot.updates += 1
    return {alpha: part.bucket.runs(names) for alpha, names in groups.items()}


def _start_grown_elements(part: Part, config: RWalkConfig) -> None:
    """Elements that joined by growth see their first gradient: their Fisher starts as any other."""
    for name in part.names:
        slot = part.bucket.slots[name]
        if slot.fresh is not None and config.fisher_start == "first":
            fisher, gradient = part.bucket.views("fisher")[name], part.bucket.views("gradient")[name]
            fisher[slot.fresh] = gradient[slot.fresh].square()
        slot.fresh = None
