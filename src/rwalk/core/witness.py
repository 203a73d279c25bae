"""Whether anything but the optimizer has moved weights."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rwalk.core.parts import Part, Watched
from rwalk.core.sharding import ORDINARY, local

__all__ = ["Witness"]

#: Parameters, the largest ones, of which elements are looked at, and where in them, as shares of their elements.
LARGEST, PLACES = 3, (0.36, 0.83)
#: Weights that were exchanged and put back may have been rounded.
ROUNDINGS = 16


class Witness:
    """Looks at weights as a step leaves them, and sees later whether they are still there.

    On the CPU it compares a few elements: whatever moves all weights is seen (restoring the best epoch's, an average in
    their place), and that they are back is seen too; what moves only some may not be. Elsewhere, where looking would
    make the host wait, it compares torch's version counters, which operations in place advance. A parameter whose place
    another has taken has moved.
    """

    def __init__(self) -> None:
        self._parts: Sequence[Part] | None = None
        self._known: list[tuple[Watched, Tensor]] = []
        self._samples: list[_Sample] = []
        self._seen: list[float] = []

    def __getstate__(self) -> dict[str, object]:
        """A copy's weights are its own."""
        return vars(Witness())

    def look(self, parts: Sequence[Part]) -> None:
        """Note how the weights of these parts are."""
        if self._parts is not parts:
            self._parts = parts
            self._known = [(entry, entry.parameter) for part in parts for entry in part.watched]
            plain = [tensor for tensor in (local(p) for _, p in self._known) if _is_plain(tensor)]
            self._samples = [_Sample(tensor) for tensor in sorted(plain, key=Tensor.numel)[-LARGEST:]]
        self._seen = self._state()

    def forget(self) -> None:
        """Watch nothing any more."""
        vars(self).update(vars(Witness()))

    def sees_a_move(self) -> bool:
        """Whether weights have moved, or are others, since ``look``."""
        if self._others():
            return True
        now = self._state()
        if now == self._seen or not self._samples:
            return now != self._seen
        each = len(PLACES)
        then = [self._seen[start : start + each] for start in range(0, len(self._seen), each)]
        return len(now) != len(self._seen) or any(
            abs(now[index * each + place] - values[place]) > sample.rounding * max(map(abs, values))
            for index, (sample, values) in enumerate(zip(self._samples, then, strict=True))
            for place in range(each)
        )

    def _others(self) -> bool:
        return any(entry.parameter is not parameter for entry, parameter in self._known)

    def _state(self) -> list[float]:
        if self._samples:
            return [value for sample in self._samples for value in sample.values()]
        return [float(_version(parameter)) for _, parameter in self._known]


class _Sample:
    """A few elements of a tensor on the CPU."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor, self._bytes, self._read = tensor, tensor.nbytes, READERS[tensor.dtype]
        self._offsets = [int(place * tensor.numel()) * tensor.element_size() for place in PLACES]
        eps = torch.finfo(tensor.dtype).eps
        self.rounding = min(ROUNDINGS * eps, max(1e-3, eps))

    def values(self) -> list[float]:
        """Them, as they are now; none if the tensor has other memory, or none, in which they are not to be found."""
        address = self._tensor.data_ptr()
        if not address or self._tensor.nbytes != self._bytes:
            return []
        return [self._read(address + offset) for offset in self._offsets]


def _version(parameter: Tensor) -> int:
    if type(parameter) in ORDINARY:
        return parameter._version
    return parameter._version + local(parameter)._version


def _is_plain(tensor: Tensor) -> bool:
    usual = type(tensor) in ORDINARY and tensor.device.type == "cpu" and tensor.dtype in READERS
    return usual and tensor.numel() > 0 and tensor.is_contiguous()


def _from_bfloat16(address: int) -> float:
    return ctypes.c_float.from_buffer(ctypes.c_uint32(ctypes.c_uint16.from_address(address).value << 16)).value


READERS: dict[torch.dtype, Callable[[int], float]] = {
    torch.float32: lambda address: ctypes.c_float.from_address(address).value,
    torch.float64: lambda address: ctypes.c_double.from_address(address).value,
    torch.bfloat16: _from_bfloat16,
}
