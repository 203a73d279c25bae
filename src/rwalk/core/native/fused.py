"""The halves of a step as one pass over memory each, or one pass for both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import increment_version

from rwalk.core.buckets import Bucket
from rwalk.core.config import RWalkConfig
from rwalk.core.eager import Eager
from rwalk.core.native import invocation
from rwalk.core.native.source import SUPPORTED
from rwalk.core.parts import Part
from rwalk.core.sharding import local

__all__ = ["Fused", "why_not"]

WINDOWS = {"start": 0, "displaced": 1, "step": 2}
MOVED = {"start": {"start": "window_start"}, "displaced": {"displacement": "displacement"}}
ADVANCED = {"gradient": "gradient", "start": "window_start", "change": "loss_change", "fisher": "fisher"}


def why_not(bucket: Bucket) -> str | None:
    """Why the fused kernels cannot serve a bucket, in one line; None if they can."""
    if bucket.device.type != "cpu":
        return f"the parameters are on {bucket.device.type}, the fused kernels are for the CPU"
    if type(bucket.require("fisher")[0]) is not Tensor:
        return "the state is not in real memory (a fake tensor)"
    if invocation.types_of(bucket) not in SUPPORTED:
        return f"there are no fused kernels for {str(bucket.parameter_dtype).removeprefix('torch.')} parameters"
    return invocation.library(invocation.types_of(bucket))[1]


class Fused(Eager):
    """Runs the compiled kernels; what they do not cover, it leaves to ``Eager``."""

    name = "fused"

    def read(
        self,
        part: Part,
        config: RWalkConfig,
        *,
        grad_scale: Tensor | float | None,
        measured: Sequence[Tensor] | None,
        penalised: bool,
    ) -> None:
        """As ``Eager.read``."""
        if measured is not None or part.mixed:
            super().read(part, config, grad_scale=grad_scale, measured=measured, penalised=penalised)
            return
        call = invocation.prepared("read", part, {"gradient": "gradient", "before": "before", **_penalty(penalised)})
        call(
            part.gradients,
            scale=1.0 if grad_scale is None else float(grad_scale),
            strength=config.strength,
            penalised=penalised,
        )
        if penalised:
            increment_version(part.gradients)

    def account(self, part: Part, config: RWalkConfig, *, rates: Sequence[float] | None, step: int) -> None:
        """As ``Eager.account``."""
        flats = {"gradient": "gradient", "before": "before", "fisher": "fisher"}
        if config.window == "step":
            flats["score"] = config.scored
        else:
            flats["change"] = "loss_change"
            flats |= MOVED[config.window]
        call = invocation.prepared("account", part, flats)
        by_parts = config.sums_by_parts
        call(rate=rates, updates=rates is not None, by_parts=by_parts, seed=step, **_score(config))

    def advance(
        self,
        part: Part,
        config: RWalkConfig,
        *,
        rates: Sequence[float] | None,
        late: Sequence[float] | None,
        opens: bool,
        penalised: bool,
    ) -> None:
        """As ``Eager.advance``."""
        if part.mixed:
            super().advance(part, config, rates=rates, late=late, opens=opens, penalised=penalised)
            return
        call = invocation.prepared("advance", part, ADVANCED | _penalty(penalised))
        call(
            part.gradients,
            rate=rates,
            late=late,
            updates=rates is not None,
            catches_up=late is not None,
            opens=opens,
            penalised=penalised,
            strength=config.strength,
        )
        if penalised:
            increment_version(part.gradients)

    def settle(self, part: Part, config: RWalkConfig, *, late: Sequence[float] | None) -> None:  # noqa: ARG002
        """As ``Eager.settle``."""
        call = invocation.prepared("settle", part, ADVANCED)
        call(late=late, catches_up=late is not None)

    def close(
        self, part: Part, config: RWalkConfig, *, damping: float | Tensor, step: int, settles: bool = False
    ) -> None:
        """As ``Eager.close``."""
        flats = {"change": "loss_change", "score": config.scored}
        if settles:
            flats["gradient"] = "gradient"
        if config.distance == "riemannian":
            flats["fisher"] = "window_fisher" if config.fisher_in_score == "window_start" else "fisher"
        flats |= MOVED[config.window]
        call = invocation.prepared("close", part, flats)
        call(seed=step, settles=settles, **{**_score(config), "damping": float(damping)})

    def pull(self, part: Part, config: RWalkConfig, *, rates: Sequence[float]) -> None:
        """As ``Eager.pull``."""
        call = invocation.prepared("pull", part, _penalty(True))
        parameters = call(rate=rates, strength=config.strength)
        increment_version(parameters)
        for entry, parameter in zip(part.watched, parameters, strict=True):
            if parameter is not local(entry.parameter):
                local(entry.parameter).copy_(parameter)


def _penalty(acts: bool) -> dict[str, str]:
    return {"importance": "importance", "anchor": "anchor"} if acts else {}


def _score(config: RWalkConfig) -> dict[str, Any]:
    return {
        "damping": config.damping_value,
        "factor": config.distance_factor,
        "window": WINDOWS[config.window],
        "euclidean": config.distance == "euclidean",
        "rectified": config.rectify == "window",
    }
