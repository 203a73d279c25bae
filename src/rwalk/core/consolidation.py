"""The end of a task: scores are averaged, importances scaled, anchors dropped."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from rwalk.core import functional as F
from rwalk.core.buckets import Bucket
from rwalk.core.config import RWalkConfig
from rwalk.core.parts import Part, tile_size
from rwalk.core.sharding import over_processes
from rwalk.errors import RWalkError

__all__ = ["freeze"]

log = logging.getLogger(__name__)


def freeze(buckets: list[Bucket], residents: list[Part], config: RWalkConfig, tasks_before: int) -> None:
    """Average the scores, build the penalty's importances and drop anchors where the parameters stand.

    Works tile by tile, so that it needs no room of its own.

    Raises:
        RWalkError: Fisher or score is not finite; nothing has changed then.
    """
    parameters = [entry.parameter for part in residents for entry in part.watched]
    quantities = ("fisher", "score", "task_score") if config.keeps_task_score else ("fisher", "score")
    _check_finite(buckets, quantities, parameters)
    for bucket in buckets:
        _average_scores(bucket, config, tasks_before)
    terms = [name for name in ("fisher", "score") if config.terms in ("both", name)]
    extents = {name: _extent([bucket.require(name)[0] for bucket in buckets], parameters) for name in terms}
    for name, (_, high) in extents.items():
        if high <= 0:
            log.warning("consolidate(): the %s of every weight is zero and adds nothing to the penalty", name)
    for bucket in buckets:
        _build_importance(bucket, config, extents)
    for part in residents:
        part.gather("anchor", part.parameters)
    if config.fisher_boundary == "reset":
        for bucket in buckets:
            bucket.require("fisher")[0].zero_()
            for slot in bucket.slots.values():
                slot.updates = 0


def _average_scores(bucket: Bucket, config: RWalkConfig, tasks_before: int) -> None:
    for tile in _tiles(bucket):
        score = _load(bucket, "score", tile)
        new = None
        if config.keeps_task_score:
            new = _load(bucket, "task_score", tile)
            if config.rectify == "task":
                new = new.clamp(min=0.0)
        average = F.average_scores(score, new, tasks_before, config.score_average)
        bucket.flat["score"][tile].copy_(average)
    if config.keeps_task_score:
        bucket.flat["task_score"].zero_()


def _build_importance(bucket: Bucket, config: RWalkConfig, extents: dict[str, tuple[Tensor, Tensor]]) -> None:
    (importance,) = bucket.require("importance")
    for tile in _tiles(bucket):
        total = torch.zeros(tile.stop - tile.start, dtype=bucket.dtype, device=bucket.device)
        for name, (low, high) in extents.items():
            value = _load(bucket, name, tile).clamp(min=0.0)
            F.combine_importance(total, F.scale(value, low.to(value), high.to(value), config.scaling), out=total)
        importance[tile].copy_(total)


def _tiles(bucket: Bucket) -> Iterator[slice]:
    step = tile_size(bucket.device)
    for start in range(0, bucket.size, step):
        yield slice(start, min(bucket.size, start + step))


def _load(bucket: Bucket, quantity: str, tile: slice) -> Tensor:
    return bucket.require(quantity)[0][tile].to(bucket.device, bucket.dtype)


def _check_finite(buckets: Iterable[Bucket], quantities: Iterable[str], parameters: Sequence[Tensor]) -> None:
    bad = [
        f"{quantity} of {name!r}"
        for quantity in quantities
        for bucket in buckets
        if not _is_finite(bucket.require(quantity)[0])
        for name, view in bucket.views(quantity).items()
        if not _is_finite(view)
    ]
    if over_processes(torch.tensor(float(bool(bad))), parameters, "max"):  # all of them stop, or none
        raise RWalkError(
            f"{bad[0] if bad else 'Fisher or score in another process'} is not finite: a gradient was inf or NaN. Clip "
            "gradients, use GradScaler, lower the learning rate, or if the penalty is too strong for it take "
            "penalty='proximal'; the importances of past tasks are unchanged"
        )


def _is_finite(values: Tensor) -> bool:
    return not values.numel() or all(bool(torch.isfinite(extreme)) for extreme in torch.aminmax(values))


def _extent(tensors: list[Tensor], parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Smallest and largest non-negative part over tensors of several devices, and over all processes' shards."""
    extremes = [torch.aminmax(tensor) for tensor in tensors if tensor.numel()]
    highest = max((float(extreme.max) for extreme in extremes), default=0.0)
    lowest = min((float(extreme.min) for extreme in extremes), default=math.inf)
    ends = torch.tensor([max(highest, 0.0), -max(lowest, 0.0)], dtype=torch.float64)
    high, low = over_processes(ends, parameters, "max").cpu().unbind()
    return -low, high
