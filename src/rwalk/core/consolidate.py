"""The end of a task: scores are averaged, importances scaled, anchors set."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rwalk.batches import ordinary, refuse_single, to_device
from rwalk.core import equations as F
from rwalk.core.averaging import ends
from rwalk.core.config import RWalkConfig
from rwalk.core.eager import Tile, tile_size, tiles
from rwalk.core.sharding import over_processes, over_replicas, replicated, weights_in_sums
from rwalk.core.state import Bucket, Cohort, Tracked, arithmetic
from rwalk.errors import RWalkError
from rwalk.module_state import with_buffers_put_back

__all__ = ["check_finite", "estimate_fisher", "fisher_of_task", "freeze", "merge_fisher", "take_fisher"]

log = logging.getLogger(__name__)


def freeze(
    buckets: list[Bucket],
    residents: list[Cohort],
    config: RWalkConfig,
    tasks_before: int,
    resting: Collection[Tracked],
) -> None:
    """Average the scores, build the penalty's importances and set the anchors where the task ended.

    A parameter that had no step in this task keeps its score; averaging it with none would halve it. Works tile by
    tile, so that it needs no room of its own.

    Args:
        buckets: The state.
        residents: All parameters.
        config: The settings.
        tasks_before: Tasks that ended before this one.
        resting: Those whose Fisher and score are of past tasks. Where importances add up, they counted there already
            and add nothing, and nobody is scaled by them.

    Raises:
        RWalkError: Fisher, score or weights are not finite; nothing has changed then.
    """
    left_out = resting if config.combine in ("sum", "mean") else ()
    parameters = [entry.parameter for cohort in residents for entry in cohort.entries]
    check_finite(buckets, residents, config)
    _end_scores(residents, config, tasks_before)
    terms = [name for name in ("fisher", "score") if config.terms in ("both", name)]
    unseen = {e for cohort in residents for e in cohort.entries if e.last_task is None and not e.updates}
    apart = _without(residents, unseen.union(left_out))
    extents = {name: _extent_of(name, apart, config, parameters) for name in terms}
    for name, (_, high) in extents.items():
        if high <= 0:
            log.warning("consolidate(): the %s of every weight is zero and adds nothing to the penalty", name)
    for bucket in buckets:
        past = bucket.flat.get("importance") if config.combine != "replace" else None
        past = None if past is None else past.to(bucket.dtype) * config.decay
        _build_importance(bucket, config, extents)
        for entry in left_out:
            if entry in bucket.starts:
                bucket.view(entry, "importance").zero_()
        weights = ends(bucket, averaged=config.anchor_at == "average")
        if past is None:
            Cohort(bucket, list(bucket.starts)).gather("anchor", weights)
        else:
            _join(bucket, past, weights, config, tasks_before)
    if config.fisher_boundary == "reset":
        for bucket in buckets:
            bucket.require("fisher")[0].zero_()
            for entry in bucket.starts:
                entry.updates = 0


def merge_fisher(cohorts: Iterable[Cohort], estimate: dict[str, Tensor], config: RWalkConfig) -> None:
    """Merge a Fisher estimated in a pass of its own into the moving one; that of what is frozen or left out stays."""
    for cohort in cohorts:
        for entry, fisher in zip(cohort.entries, cohort.views("fisher"), strict=True):
            if entry.name not in estimate or not entry.parameter.requires_grad:
                continue
            first = entry.updates == 0 and config.fisher_start == "first"
            found = estimate[entry.name].to(fisher.dtype)
            F.fisher_merge(fisher, found, 1.0 if first else config.ewc_alpha, out=fisher)
            if entry.fresh is not None and config.fisher_start == "first":
                fisher[entry.fresh] = found[entry.fresh]
            entry.fresh = None
            entry.updates += 1


def take_fisher(cohorts: Iterable[Cohort], estimate: dict[str, Tensor]) -> None:
    """Put a Fisher of single samples in place of the running one; that of what is frozen stays."""
    for cohort in cohorts:
        for entry, fisher in zip(cohort.entries, cohort.views("fisher"), strict=True):
            if entry.name in estimate and entry.parameter.requires_grad:
                fisher.copy_(estimate[entry.name])
                entry.updates, entry.fresh = max(entry.updates, 1), None


def estimate_fisher(
    model: nn.Module,
    parameters: dict[str, nn.Parameter],
    batches: Iterable[Any],
    forward: Callable[[Any], Tensor] | None = None,
) -> dict[str, Tensor]:
    r"""Diagonal Fisher from squared batch gradients, the model's most likely class taken as label.

    .. math:: \hat F = \frac1N \sum_b B_b \, \big(\nabla \mathcal L_b\big)^2

    where :math:`\mathcal L_b` is the mean cross-entropy of batch b with :math:`B_b` samples, N in all. The model keeps
    its mode, its ``.grad`` and its buffers (running statistics of normalisation layers are put back). If it is wrapped
    by DistributedDataParallel, N counts all processes' batches, which may be a share each, or all in every one.

    Args:
        model: Maps inputs to scores of classes, shape (B, C).
        parameters: Whose Fisher, by name.
        batches: Tensors x, pairs (x, y) or dictionaries.
        forward: Maps a batch to those scores; the model on the batch without its labels if None.

    Returns:
        A tensor per name, in the parameter's shape; zero where it is frozen or the output does not depend on it.

    Raises:
        RWalkError: There are no batches, or a gradient is not finite.
        TypeError: ``batches`` is a single batch.

    References:
        FACIL's ``r_walk.py`` estimates the Fisher like this, after each task.
    """
    refuse_single("batches", batches)
    from rwalk.core.likelihood import call, outputs_of, split  # which a walk does not need

    learning = {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}
    total = {name: torch.zeros_like(p, dtype=arithmetic(p.dtype)) for name, p in parameters.items()}
    if not learning:
        raise RWalkError("every parameter is frozen (requires_grad=False): there is no Fisher to estimate")
    device = next(iter(learning.values())).device
    samples = 0
    wrapper = replicated(model)
    bare = model if wrapper is None else wrapper.module  # whose forward pass waits for no other process
    with torch.enable_grad(), with_buffers_put_back(model):
        for batch in batches:
            if forward is None:
                here = ordinary(to_device(batch, device))
                found = call(bare, here[0] if isinstance(here, (list, tuple)) and here else split(here)[0])
            else:
                found = forward(batch)
            outputs = outputs_of(found)
            loss = nn.functional.cross_entropy(outputs, outputs.argmax(dim=1))
            gradients = torch.autograd.grad(loss, list(learning.values()), allow_unused=True)
            for name, gradient in zip(learning, gradients, strict=True):
                if gradient is not None:
                    total[name].add_(gradient.to(total[name].dtype).square(), alpha=len(outputs))
            samples += len(outputs)
    samples = over_replicas(wrapper, list(total.values()), samples)
    if samples == 0:
        raise RWalkError("the data loader given for the Fisher has no batches")
    for name, accumulated in total.items():
        if not bool(accumulated.isfinite().all()):
            raise RWalkError(
                f"consolidate(): the gradient of {name!r} is not finite on these batches. The task has not ended and "
                "nothing has changed"
            )
    return {name: accumulated / samples for name, accumulated in total.items()}


def fisher_of_task(
    model: nn.Module,
    present: Iterable[Tracked],
    batches: Iterable[Any],
    forward: Callable[[Any], Tensor] | None,
    config: RWalkConfig,
    tasks: int,
) -> dict[str, Tensor]:
    """``protection_of`` at the end of a task, for ``fisher_source="samples"``.

    Args:
        model: The model.
        present: What has state, whether the optimizer moves it still or not.
        batches: The task's data.
        forward: Maps a batch to the outputs, where that takes more than calling the model.
        config: How many samples are looked at.
        tasks: How many ended before; also the seed of the labels that are drawn.

    Returns:
        A tensor per name.

    Raises:
        RWalkError: What the outputs are cannot be told, there are no samples, or a gradient is not finite.
    """
    from rwalk.core.samples import protection_of  # which a walk does not need

    try:
        found, done = protection_of(
            model, present, batches, labels="sampled", likelihood=None, class_dim=None, log_prob=None,
            forward=forward, max_samples=config.fisher_samples, seed=tasks, progress=False,
        )  # fmt: skip
    except RWalkError as error:
        hint = (
            ". Here forward does that: a function of a batch that gives scores of classes, shape (B, classes). Where "
            "it is the labels that leave it open, give batches without them, [x for x, _ in batches]"
            if "log_prob(" in str(error)
            else ""
        )
        raise RWalkError(f"consolidate(): {error}{hint}. The task has not ended and nothing has changed") from error
    log.info("consolidate(): the Fisher of %s", done)
    return found


def _end_scores(residents: Iterable[Cohort], config: RWalkConfig, tasks_before: int) -> None:
    for cohort in residents:
        walked = [entry for entry in cohort.entries if entry.last_task == tasks_before]
        if walked:
            for tile in tiles(Cohort(cohort.bucket, walked)):
                _average_scores(tile, config, tasks_before)
        if config.score_average == "latest":  # what rested has none
            for entry, score in zip(cohort.entries, cohort.views("score"), strict=True):
                if entry.last_task != tasks_before:
                    score.zero_()


def _average_scores(tile: Tile, config: RWalkConfig, tasks_before: int) -> None:
    score = tile.load("score")
    new = None
    if config.keeps_task_score:
        new = tile.load("task_score")
        if config.rectify == "task":
            new = new.clamp(min=0.0)
    tile.flat("score").copy_(F.average_scores(score, new, tasks_before, config.score_average))
    if config.keeps_task_score:
        tile.flat("task_score").zero_()


def _build_importance(bucket: Bucket, config: RWalkConfig, extents: dict[str, tuple[Tensor, Tensor]]) -> None:
    (importance,) = bucket.require("importance")
    for stretch in _stretches(bucket):
        total = torch.zeros(stretch.stop - stretch.start, dtype=bucket.dtype, device=bucket.device)
        for name, (low, high) in extents.items():
            value = bucket.require(name)[0][stretch].to(bucket.dtype).clamp(min=0.0)
            total.add_(F.scale(value, low.to(value), high.to(value), config.scaling))
        importance[stretch].copy_(total)


def _join(bucket: Bucket, past: Tensor, weights: Sequence[Tensor], config: RWalkConfig, tasks_before: int) -> None:
    """Importances of past tasks join this one's; summed, each anchor moves by this task's share in them, or all."""
    importance, _ = bucket.require("importance", "anchor")
    new = importance.to(bucket.dtype)
    if config.combine == "max":
        importance.copy_(torch.maximum(past, new))
        share = torch.ones_like(past)
    else:
        if config.combine == "mean":
            past, new = past * (tasks_before / (tasks_before + 1)), new / (tasks_before + 1)
        total = past + new
        share = torch.where(total > 0, new / total, 1.0) if config.anchors == "weighted" else torch.ones_like(past)
        importance.copy_(total)
    for entry, present in zip(bucket.starts, weights, strict=True):
        start, anchor = bucket.starts[entry], bucket.view(entry, "anchor")
        anchor.lerp_(present.to(anchor), share[start : start + anchor.numel()].view(anchor.shape))


def _stretches(bucket: Bucket) -> Iterator[slice]:
    step = tile_size(bucket.device)
    for start in range(0, bucket.size, step):
        yield slice(start, min(bucket.size, start + step))


def check_finite(buckets: Iterable[Bucket], residents: Iterable[Cohort], config: RWalkConfig) -> None:
    """Make sure that importances and anchors can be made of the state.

    Args:
        buckets: The state.
        residents: All parameters.
        config: The settings.

    Raises:
        RWalkError: Fisher, score or weights are not finite.
    """
    quantities = ("fisher", "score", "task_score") if config.keeps_task_score else ("fisher", "score")
    parameters = [entry.parameter for cohort in residents for entry in cohort.entries]
    lost = [
        entry.name
        for bucket in buckets
        for entry, weight in zip(bucket.starts, ends(bucket, averaged=config.anchor_at == "average"), strict=True)
        if not _is_finite(weight.detach())
    ]
    bad = [
        f"{quantity} of {entry.name!r}"
        for quantity in quantities
        for cohort in residents
        if not _is_finite(cohort.bucket.require(quantity)[0])
        for entry, view in zip(cohort.entries, cohort.views(quantity), strict=True)
        if not _is_finite(view)
    ]
    here = 2.0 if lost else 1.0 if bad else 0.0
    worst = float(over_processes(torch.tensor(here), parameters, "max"))  # all of them stop, or none
    if worst == 2.0:
        raise RWalkError(
            f"{lost[0] if lost else 'a parameter in another process'} holds weights that are not finite, to which "
            "nothing can be held: put the last good ones back first; the importances of past tasks are unchanged"
        )
    if worst:
        raise RWalkError(
            f"{bad[0] if bad else 'Fisher or score in another process'} is not finite, though no gradient was: it "
            "overflowed. Lower the learning rate, or if the penalty is too strong for it take penalty='proximal'; the "
            "importances of past tasks are unchanged"
        )


def _is_finite(values: Tensor) -> bool:
    return not values.numel() or all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(values))


def _without(cohorts: Iterable[Cohort], entries: Collection[Tracked]) -> list[Cohort]:
    return [Cohort(c.bucket, [entry for entry in c.entries if entry not in entries]) for c in cohorts]


def _extent_of(
    quantity: str, cohorts: list[Cohort], config: RWalkConfig, parameters: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """The ends of the range that ``scale`` is given."""
    if config.scaling == "sum":
        return torch.zeros(()), _sum(cohorts, quantity, parameters)
    return _extent([view for cohort in cohorts for view in cohort.views(quantity)], parameters)


def _sum(residents: Iterable[Cohort], quantity: str, parameters: Sequence[Tensor]) -> Tensor:
    """Sum of the non-negative part over all elements of all parameters, and over all processes' shards."""
    total = torch.zeros((), dtype=torch.float64)
    entries = [entry for cohort in residents for entry in cohort.entries]
    values = [view for cohort in residents for view in cohort.views(quantity)]
    for weight, value in zip(weights_in_sums([entry.parameter for entry in entries]), values, strict=True):
        total += weight * float(value.to(arithmetic(value.dtype)).clamp(min=0.0).sum(dtype=torch.float64))
    return over_processes(total, parameters, "sum").cpu()


def _extent(tensors: list[Tensor], parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Smallest and largest non-negative part over tensors of several devices, and over all processes' shards."""
    extremes = [torch.aminmax(tensor) for tensor in tensors if tensor.numel()]
    highest = max((float(extreme.max) for extreme in extremes), default=0.0)
    lowest = min((float(extreme.min) for extreme in extremes), default=math.inf)
    ends = torch.tensor([max(highest, 0.0), -max(lowest, 0.0)], dtype=torch.float64)
    high, low = over_processes(ends, parameters, "max").cpu().unbind()
    return -low, high
