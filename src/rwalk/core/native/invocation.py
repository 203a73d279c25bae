"""A call of a compiled kernel on the parameters of a part."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor

from rwalk.core.buckets import Bucket
from rwalk.core.native.build import BuildError, load_library
from rwalk.core.native.source import Types, program
from rwalk.core.parts import Part
from rwalk.errors import RWalkError

__all__ = ["library", "prepared", "types_of"]

#: Elements from which writes bypass the cache: what is written would not stay there until it is read.
BYPASS = 1 << 19
#: Elements from which more than one thread pays.
PARALLEL = 1 << 14
COUNTS = ("count", "total", "threads")
ARRAYS = ("theta", "grad", "offset", "size", "rate", "late")
FLATS = ("gradient", "before", "importance", "anchor", "fisher", "change", "start", "displacement", "score")
NUMBERS = ("strength", "scale", "damping", "factor")
SWITCHES = (
    *("penalised", "updates", "catches_up", "opens", "settles", "by_parts", "window", "euclidean", "rectified"),
    *("bypass", "seed"),
)


class Call(ctypes.Structure):
    """The kernels' argument; ``prelude.c`` says what each field is."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in COUNTS),
        *((name, ctypes.c_void_p) for name in ARRAYS),
        *((name, ctypes.c_void_p) for name in FLATS),
        *((name, ctypes.c_double) for name in NUMBERS),
        *((name, ctypes.c_int64) for name in SWITCHES),
    )


class Invocation:
    """A kernel with its argument laid out for a part: from step to step only what has changed is written to it.

    Args:
        kernel: Its name.
        part: The parameters.
        flats: The quantity behind each of the call's pointers.
    """

    def __init__(self, kernel: str, part: Part, flats: dict[str, str]) -> None:
        kernels, _ = library(types_of(part.bucket))
        self._function = getattr(kernels, f"rwalk_{kernel}")
        self._part = part
        offsets, sizes, total = part.extents
        self._total = total
        count = len(sizes)
        self._arrays: dict[str, array[Any]] = {"offset": offsets, "size": sizes, "theta": array("q", bytes(8 * count))}
        self._arrays["grad"] = array("q", bytes(8 * count))
        self._arrays["rate"] = self._arrays["late"] = array("d", bytes(8 * count))
        self._flats = [(quantity, part.bucket.require(quantity)[0]) for quantity in flats.values()]
        self._call = Call(
            count=count,
            total=total,
            bypass=total >= BYPASS,
            scale=1.0,
            **{name: kept.buffer_info()[0] for name, kept in self._arrays.items()},
            **{field: flat.data_ptr() for field, (_, flat) in zip(flats, self._flats, strict=True)},
        )
        self._argument = ctypes.byref(self._call)

    def is_current(self) -> bool:
        """Whether the state is still where it was."""
        kept = self._part.bucket.flat
        return all(kept[quantity] is flat for quantity, flat in self._flats)

    def __call__(
        self,
        gradients: Sequence[Tensor] = (),
        *,
        rate: Sequence[float] | None = None,
        late: Sequence[float] | None = None,
        **fields: Any,
    ) -> list[Tensor]:
        """Run the kernel; returns the parameters it worked on, contiguous."""
        call, parameters = self._call, self._part.parameters
        self._arrays["theta"][:] = _addresses(parameters)
        if gradients:
            self._arrays["grad"][:] = _addresses(gradients)
        for name, values in (("rate", rate), ("late", late)):
            if values is not None:
                self._weigh(name, values)
        call.threads = torch.get_num_threads() if self._total >= PARALLEL else 1
        for name, value in fields.items():
            setattr(call, name, value)
        self._function(self._argument)
        return parameters

    def _weigh(self, name: str, values: Sequence[float]) -> None:
        kept = array("d", values)
        self._arrays[name] = kept
        setattr(self._call, name, kept.buffer_info()[0])


def prepared(kernel: str, part: Part, flats: dict[str, str]) -> Invocation:
    """The invocation of a kernel on a part, made once; ``flats`` name the quantity behind each of its pointers."""
    key = (kernel, *flats.values())
    found = part.prepared.get(key)
    if found is None or not found.is_current():
        found = part.prepared[key] = Invocation(kernel, part, flats)
    return cast("Invocation", found)


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


def types_of(bucket: Bucket) -> Types:
    """Of the parameters, of the arithmetic and of what may be compact."""
    compact = bucket.storage.compact and bucket.dtype is torch.float32
    return bucket.parameter_dtype, bucket.dtype, torch.bfloat16 if compact else bucket.dtype


@cache
def library(types: Types) -> tuple[ctypes.CDLL | None, str | None]:
    """The kernels for a combination of types, or why there are none; asked once a process."""
    try:
        return load_library(program(types)), None
    except BuildError as error:
        return None, str(error)
