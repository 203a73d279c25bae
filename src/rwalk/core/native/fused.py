"""The halves of a step as one pass over memory each."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from rwalk.core.buckets import Bucket
from rwalk.core.config import RWalkConfig
from rwalk.core.eager import Eager
from rwalk.core.native.build import BuildError, load_library
from rwalk.core.native.source import SUPPORTED, Types, program
from rwalk.core.parts import Part
from rwalk.core.sharding import local
from rwalk.errors import RWalkError

__all__ = ["Fused", "why_not"]

#: Elements from which writes bypass the cache: what is written would not stay there until it is read.
BYPASS = 1 << 19
#: Elements from which more than one thread pays.
PARALLEL = 1 << 14
WINDOWS = {"start": 0, "displaced": 1, "step": 2}
COUNTS = ("count", "total", "threads")
ARRAYS = ("theta", "grad", "offset", "size", "rate")
FLATS = ("gradient", "before", "importance", "anchor", "fisher", "change", "start", "displacement", "score")
NUMBERS = ("strength", "scale", "damping", "factor")
SWITCHES = ("penalised", "updates", "window", "euclidean", "rectified", "bypass", "seed")


class Call(ctypes.Structure):
    """The kernels' argument; ``prelude.c`` says what each field is."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in COUNTS),
        *((name, ctypes.c_void_p) for name in ARRAYS),
        *((name, ctypes.c_void_p) for name in FLATS),
        *((name, ctypes.c_double) for name in NUMBERS),
        *((name, ctypes.c_int64) for name in SWITCHES),
    )


def why_not(bucket: Bucket) -> str | None:
    """Why the fused kernels cannot serve a bucket, in one line; None if they can."""
    if bucket.device.type != "cpu":
        return f"the parameters are on {bucket.device.type}, the fused kernels are for the CPU"
    if type(bucket.require("fisher")[0]) is not Tensor:
        return "the state is not in real memory (a fake tensor)"
    if _types(bucket) not in SUPPORTED:
        return f"there are no fused kernels for {str(bucket.parameter_dtype).removeprefix('torch.')} parameters"
    return _library(_types(bucket))[1]


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
        flats = ["gradient", "before", *(("importance", "anchor") if penalised else ())]
        _run(
            "read",
            part,
            part.parameters,
            {name: name for name in flats},
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
            if config.window == "displaced":
                flats["displacement"] = "displacement"
        _run("account", part, part.parameters, flats, rates, updates=rates is not None, seed=step, **_score(config))

    def close(self, part: Part, config: RWalkConfig, *, damping: float | Tensor, step: int) -> None:
        """As ``Eager.close``."""
        flats = {"change": "loss_change", "score": config.scored}
        if config.distance == "riemannian":
            flats["fisher"] = "window_fisher" if config.fisher_in_score == "window_start" else "fisher"
        if config.window == "displaced":
            flats["displacement"] = "displacement"
        else:
            flats["start"] = "window_start"
        _run("close", part, part.parameters, flats, seed=step, **{**_score(config), "damping": float(damping)})

    def pull(self, part: Part, config: RWalkConfig, *, rates: Sequence[float]) -> None:
        """As ``Eager.pull``."""
        parameters = part.parameters
        _run(
            "pull", part, parameters, {"importance": "importance", "anchor": "anchor"}, rates, strength=config.strength
        )
        increment_version(parameters)
        for entry, parameter in zip(part.watched, parameters, strict=True):
            if parameter is not local(entry.parameter):
                local(entry.parameter).copy_(parameter)


def _score(config: RWalkConfig) -> dict[str, Any]:
    return {
        "damping": config.damping_value,
        "factor": config.distance_factor,
        "window": WINDOWS[config.window],
        "euclidean": config.distance == "euclidean",
        "rectified": config.rectify == "window",
    }


def _run(
    kernel: str,
    part: Part,
    parameters: Sequence[Tensor],
    flats: dict[str, str],
    rates: Sequence[float] | None = None,
    **fields: Any,
) -> None:
    """Call a kernel on a part: ``flats`` name the quantity behind each of the call's pointers."""
    bucket = part.bucket
    library, _ = _library(_types(bucket))
    offsets, sizes, total = part.extents
    theta, grad = _addresses(parameters), _addresses(part.gradients)
    rate = array("d", rates or ())
    call = Call(
        count=len(theta),
        total=total,
        threads=torch.get_num_threads() if total >= PARALLEL else 1,
        theta=theta.buffer_info()[0],
        grad=grad.buffer_info()[0],
        offset=offsets.buffer_info()[0],
        size=sizes.buffer_info()[0],
        rate=rate.buffer_info()[0],
        bypass=total >= BYPASS,
        **{field: bucket.require(quantity)[0].data_ptr() for field, quantity in flats.items()},
        **fields,
    )
    getattr(library, f"rwalk_{kernel}")(ctypes.byref(call))


def _addresses(tensors: Sequence[Tensor]) -> array[int]:
    addresses = array("q", [tensor.data_ptr() for tensor in tensors])
    if 0 in addresses:
        unreachable = [tensor for tensor in tensors if tensor.numel() and not tensor.data_ptr()]
        if unreachable:
            raise RWalkError(
                f"a parameter or gradient is a {type(unreachable[0]).__name__} without memory of its own, which the "
                "fused kernels cannot reach: take backend='eager'"
            )
    return addresses


def _types(bucket: Bucket) -> Types:
    compact = bucket.storage.compact and bucket.dtype is torch.float32
    return bucket.parameter_dtype, bucket.dtype, torch.bfloat16 if compact else bucket.dtype


@cache
def _library(types: Types) -> tuple[ctypes.CDLL | None, str | None]:
    """The kernels for a combination of types, or why there are none; asked once a process."""
    try:
        return load_library(program(types)), None
    except BuildError as error:
        return None, str(error)
