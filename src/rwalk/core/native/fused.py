"""The step in C: one pass over memory for all parameters of a cohort."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from rwalk.core.config import RWalkConfig
from rwalk.core.eager import Eager, largest_gradient
from rwalk.core.native.build import BuildError, load_library
from rwalk.core.sharding import local
from rwalk.core.state import Bucket, Cohort, Keeping, Settling
from rwalk.errors import RWalkError

__all__ = ["WINDOWS", "Call", "Fused", "addresses", "library", "program", "quantities_of", "types_of", "why_not"]

Types = tuple[torch.dtype, torch.dtype, torch.dtype]

#: What there are kernels for: dtype of the parameters, of the arithmetic, and of compact quantities.
SUPPORTED: tuple[Types, ...] = (
    (torch.float32, torch.float32, torch.float32),
    (torch.float64, torch.float64, torch.float64),
    (torch.bfloat16, torch.float32, torch.float32),
    (torch.float32, torch.float32, torch.bfloat16),
    (torch.bfloat16, torch.float32, torch.bfloat16),
)
C_TYPES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bf16"}
#: How a window's displacement is known, as the kernels count it.
WINDOWS = {"start": 0, "displaced": 1, "step": 2}
#: Elements from which more than one thread pays.
PARALLEL = 1 << 14

COUNTS = ("count", "total", "threads")
ARRAYS = ("theta", "grad", "offset", "size", "rate", "flat")
NUMBERS = ("strength", "scale", "damping", "factor", "limit")
SWITCHES = (
    *("pends", "updates", "closes", "keeps", "weighs", "penalised", "window", "euclidean", "rectified", "measures"),
    *("seed", "nonfinite"),
)


class Call(ctypes.Structure):
    """The kernels' argument; ``step.c`` says what each field is."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in COUNTS),
        *((name, ctypes.c_void_p) for name in ARRAYS),
        *((name, ctypes.c_double) for name in NUMBERS),
        *((name, ctypes.c_int64) for name in SWITCHES),
    )


def program(types: Types) -> str:
    """The C program for one combination of types."""
    parameter, state, compact = (C_TYPES[dtype] for dtype in types)
    macros = {
        "P": parameter,
        "S": state,
        "Q": compact,
        "LOAD_P(x)": "from_bf16(x)" if parameter == "bf16" else "(x)",
        "STORE_P(x)": "round_to_nearest(x)" if parameter == "bf16" else "(x)",
        "LOAD_Q(x)": "from_bf16(x)" if compact == "bf16" else "(x)",
        "STORE_Q(x)": "round_to_nearest(x)" if compact == "bf16" else "(x)",
        "STORE_A(x, k)": "round_at_random(x, AT(k))" if compact == "bf16" else "(x)",
    }
    source = (files(__package__) / "step.c").read_text(encoding="utf-8")
    return "\n".join([*(f"#define {name} {value}" for name, value in macros.items()), source])


def types_of(bucket: Bucket) -> Types:
    """Of the parameters, of the arithmetic and of what may be compact."""
    return bucket.parameter_dtype, bucket.dtype, torch.bfloat16 if bucket.compact else bucket.dtype


@cache
def library(types: Types) -> tuple[ctypes.CDLL | None, str | None]:
    """The kernels for a combination of types, or why there are none; asked once a process."""
    try:
        return load_library(program(types), ("rwalk_step", "rwalk_pull")), None
    except BuildError as error:
        return None, str(error)


def why_not(bucket: Bucket) -> str | None:
    """Why the fused kernels cannot serve a bucket, in one line; None if they can."""
    if type(bucket.require("fisher")[0]) is not Tensor:
        return "the state is not in real memory (a fake tensor)"
    if types_of(bucket) not in SUPPORTED:
        return f"there are no fused kernels for {str(bucket.parameter_dtype).removeprefix('torch.')} parameters"
    return library(types_of(bucket))[1]


class Fused(Eager):
    """Runs the compiled kernels; gradients of another dtype than their parameters are left to ``Eager``."""

    name = "fused"

    def step(
        self, cohort: Cohort, config: RWalkConfig, settling: Settling | None, keeping: Keeping | None
    ) -> Tensor | bool:
        """As ``Eager.step``."""
        if keeping is not None:
            dtype = cohort.bucket.parameter_dtype
            if [gradient for gradient in keeping.gradients if gradient.dtype is not dtype]:
                return super().step(cohort, config, settling, keeping)
        return _argument(cohort, config).step(config, settling, keeping)

    def pull(
        self, cohort: Cohort, config: RWalkConfig, rates: Sequence[float | Tensor], void: Tensor | None = None
    ) -> None:
        """As ``Eager.pull``."""
        if void is not None and bool(void):
            return
        argument = _argument(cohort, config)
        weights = argument.pull(config, [float(rate) for rate in rates])
        increment_version(weights)
        for entry, moved in zip(cohort.entries, weights, strict=True):
            if moved is not local(entry.parameter):
                local(entry.parameter).copy_(moved)


def _argument(cohort: Cohort, config: RWalkConfig) -> Argument:
    found = cohort.prepared.get("argument")
    if found is None or found.config is not config:
        found = cohort.prepared["argument"] = Argument(cohort, config)
    return found


class Argument:
    """A kernel's argument, laid out for a cohort. No address in it outlives the call that it was read for.

    Args:
        cohort: The parameters.
        config: The settings.
    """

    def __init__(self, cohort: Cohort, config: RWalkConfig) -> None:
        kernels, _ = library(types_of(cohort.bucket))
        if kernels is None:
            raise RWalkError("the fused kernels are not there any more")
        self.config, self._cohort, bucket = config, cohort, cohort.bucket
        self._step, self._pull = kernels.rwalk_step, kernels.rwalk_pull
        quantities = self._quantities = quantities_of(config)
        bucket.require(*(name for name in quantities if name not in ("", "importance", "anchor")))
        count = self._count = len(cohort.sizes)
        # addresses of the parameters, of their gradients and of the quantities, one after the other
        self._places = array("q", bytes(8 * (2 * count + len(quantities))))
        self._rate: array[float] = array("d", bytes(8 * count))
        self._rates: Sequence[float] | None = None
        first = self._places.buffer_info()[0]
        self._call = Call(
            count=count,
            total=cohort.elements,
            theta=first,
            grad=first + 8 * count,
            flat=first + 16 * count,
            offset=cohort.offsets.buffer_info()[0],
            size=cohort.sizes.buffer_info()[0],
            rate=self._rate.buffer_info()[0],
            factor=config.distance_factor,
            limit=largest_gradient(bucket.dtype),
            window=WINDOWS[config.window],
            euclidean=config.distance == "euclidean",
            rectified=config.rectify == "window",
            measures=config.fisher_in_score == "window_start",
        )
        self._reference = ctypes.byref(self._call)

    def step(self, config: RWalkConfig, settling: Settling | None, keeping: Keeping | None) -> bool:
        """One pass; whether a kept gradient, or its square, is not finite."""
        call = self._call
        call.pends = call.closes = call.keeps = call.penalised = 0
        if settling is not None:
            call.pends, call.closes, call.updates = settling.pends, settling.closes, settling.rates is not None
            call.damping, call.seed = settling.damping, settling.number
            if settling.rates is not None and settling.rates is not self._rates:
                self._weigh(settling.rates)
        if keeping is None:
            self._run(self._step, self._cohort.weights())
            return False
        call.keeps, call.weighs, call.penalised = 1, keeping.weights, keeping.penalised
        call.scale = 1.0 if keeping.scale is None else float(keeping.scale)
        call.strength = config.strength
        if keeping.penalised:
            self._cohort.bucket.require("importance", "anchor")
        self._run(self._step, self._cohort.weights(), keeping.gradients)
        if keeping.penalised:
            increment_version(keeping.gradients)
        return bool(call.nonfinite)

    def pull(self, config: RWalkConfig, rates: Sequence[float]) -> list[Tensor]:
        """The proximal step; returns the weights it worked on, contiguous."""
        self._cohort.bucket.require("importance", "anchor")
        weights = self._cohort.weights()
        self._weigh(rates)
        self._rates, self._call.strength = None, config.strength
        self._run(self._pull, weights)
        return weights

    def _run(self, kernel: Any, weights: Sequence[Tensor], gradients: Sequence[Tensor] = ()) -> None:
        """Read where everything lies now, and go through it."""
        flat, count = self._cohort.bucket.flat, self._count
        found = [flat[name] for name in self._quantities if name in flat]
        places = addresses([*weights, *gradients, *found])
        index = len(weights) + len(gradients)
        self._places[:index] = array("q", places[:index])
        for position, name in enumerate(self._quantities, start=2 * count):
            present = name in flat
            self._places[position] = places[index] if present else 0
            index += present
        self._call.threads = torch.get_num_threads() if self._call.total >= PARALLEL else 1
        kernel(self._reference)

    def _weigh(self, rates: Sequence[float]) -> None:
        self._rate[:] = array("d", rates)
        self._rates = rates


def quantities_of(config: RWalkConfig) -> tuple[str, ...]:
    """The quantity behind each of the kernels' pointers, in the order of ``step.c``; empty where none is needed."""
    return (
        *("gradient", "before", "importance", "anchor", "fisher"),
        "loss_change" if config.window != "step" else "",
        "window_start" if config.window == "start" else "",
        "displacement" if config.window == "displaced" else "",
        config.scored,
        "window_fisher" if config.fisher_in_score == "window_start" else "",
    )


def addresses(tensors: Sequence[Tensor]) -> list[int]:
    """Where contiguous tensors begin.

    Raises:
        RWalkError: One has no memory, or less than its shape says.
    """
    found = []
    for tensor in tensors:
        address = tensor.data_ptr()
        spare = tensor.untyped_storage().nbytes() - tensor.storage_offset() * tensor.itemsize - tensor.nbytes
        if (not address or spare < 0) and tensor.numel():
            raise RWalkError(
                f"a {type(tensor).__name__} of shape {tuple(tensor.shape)} has no memory of its own, or less than "
                "its shape says (was its storage resized?), which the fused kernels cannot reach: take backend='eager'"
            )
        found.append(address)
    return found
