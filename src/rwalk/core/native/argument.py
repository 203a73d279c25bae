"""What the Triton kernels are called with: where parameters and gradients lie, rates, numbers, decisions."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from rwalk.core.config import RWalkConfig
from rwalk.core.eager import largest_gradient
from rwalk.core.native.fused import WINDOWS, addresses, quantities_of
from rwalk.core.native.words import DAMPING, DECISIONS, FACTOR, HEAD, LIMIT, LIVE, NONFINITE, PENDS, SCALE, STRENGTH
from rwalk.core.state import Cohort, Keeping, Settling

__all__ = ["Argument", "is_capturing", "on"]

#: Elements of one program, and of one turn of its loop.
CHUNK, BLOCK, WARPS = 2048, 2048, 8
#: Bytes to which addresses are aligned, and elements to which sizes are, where accesses become vectors.
ALIGNED_BYTES, ALIGNED_ELEMENTS = 16, 8
NOTHING = array("q", bytes(8 * DECISIONS))


class Argument:
    """A cohort's part in a launch. It is uploaded from pinned memory when it has changed, without a wait.

    What a CUDA graph captures has memory of its own, so that a replay and a step outside do not write over each
    other's.

    Args:
        kernels: The module of the kernels.
        cohort: The parameters.
        config: The settings.
    """

    def __init__(self, kernels: Any, cohort: Cohort, config: RWalkConfig) -> None:
        self.config, self._kernels, self._cohort = config, kernels, cohort
        bucket, self._device, count = cohort.bucket, cohort.bucket.device, len(cohort.sizes)
        self._quantities = quantities_of(config)
        bucket.require(*(name for name in self._quantities if name not in ("", "importance", "anchor")))
        self._count = count
        self._words = array("q", bytes(8 * (HEAD + 3 * count)))
        self._numbers = {FACTOR: config.distance_factor, LIMIT: largest_gradient(bucket.dtype)}
        self._numbers |= {STRENGTH: 0.0, SCALE: 1.0, DAMPING: 0.0}
        self._rates: Sequence[float] | None = None
        layout = [number for pair in zip(cohort.offsets, cohort.sizes, strict=True) for number in pair]
        self._layout = torch.tensor(layout, dtype=torch.int64, device=self._device)
        self._on_device = torch.empty(len(self._words), dtype=torch.int64, device=self._device)
        self._known: list[int] = []  # addresses in it
        self._sent: tuple[Any, ...] = ()
        self._chunks: list[tuple[bool, Tensor]] = []
        self._cuts: dict[bytes, list[tuple[bool, Tensor]]] = {}
        self._kept: list[Tensor] = []  # for graphs
        self._types = {"P": kernels.type_of(bucket.parameter_dtype), "S": kernels.type_of(bucket.dtype)}
        self._settings = {
            "compact": bucket.compact,
            "window": WINDOWS[config.window],
            "euclidean": config.distance == "euclidean",
            "rectified": config.rectify == "window",
            "measures": config.fisher_in_score == "window_start",
        }

    def step(
        self, config: RWalkConfig, settling: Settling | None, keeping: Keeping | None, ledger: Tensor | None = None
    ) -> Tensor | bool:
        """One pass; a tensor that is not 0 if a kept gradient, or its square, is not finite.

        Args:
            config: For the penalty's strength.
            settling: What is to be brought in; with a ledger only its rates and damping count.
            keeping: What is kept.
            ledger: Where the device itself has decided what is to be done.
        """
        if ledger is None:
            self._decide(settling)
        if settling is not None:
            self._numbers[DAMPING] = settling.damping
            if settling.rates is not None and settling.rates is not self._rates:
                self._weigh(settling.rates)
        self._numbers[STRENGTH] = config.strength
        gradients: tuple[Tensor, ...] = ()
        scale_at, scaled = self._layout, 0
        how = {"keeps": keeping is not None, "weighs": False, "penalised": False}
        if keeping is not None:
            gradients = tuple(keeping.gradients)
            how |= {"weighs": keeping.weights, "penalised": keeping.penalised}
            if keeping.penalised:
                self._cohort.bucket.require("importance", "anchor")
            if isinstance(keeping.scale, Tensor) and keeping.scale.device == self._device:
                scale_at, scaled = keeping.scale, 2
            elif keeping.scale is not None:
                self._numbers[SCALE], scaled = float(keeping.scale), 1
        places = self._place([*self._cohort.weights(), *gradients], again=ledger is None)
        flat = self._cohort.bucket.flat
        quantities = [flat.get(name, flat["fisher"]) for name in self._quantities]
        decisions = places if ledger is None else ledger
        self._launch(
            self._kernels.step, decisions, places, self._layout, scale_at, *quantities, self._count,
            **how, scaled=scaled, rests=ledger is not None and keeping is None, **self._settings,
        )  # fmt: skip
        if how["penalised"]:
            increment_version(gradients)
        return decisions[NONFINITE] if ledger is None and how["keeps"] else False

    def pull(self, config: RWalkConfig, rates: Sequence[float | Tensor], void: Tensor | None) -> list[Tensor]:
        """The proximal step; returns the weights it worked on, contiguous."""
        importance, anchor = self._cohort.bucket.require("importance", "anchor")
        traced, listed = any(isinstance(rate, Tensor) for rate in rates), self._layout
        if traced:
            listed = torch.stack([torch.as_tensor(rate, device=self._device).reshape(()) for rate in rates])
        else:
            self._weigh([float(rate) for rate in rates])
        self._numbers[STRENGTH] = config.strength
        weights = self._cohort.weights()
        places = self._place(weights)
        asked = self._layout if void is None else void.view(torch.uint8)
        self._launch(
            self._kernels.pull, places, self._layout, importance, anchor, listed, self._count, asked,
            traced=traced, asks=void is not None,
        )  # fmt: skip
        return weights

    def _launch(self, kernel: Any, *arguments: Any, **how: Any) -> None:
        with on(self._device):
            for aligned, chunks in self._chunks:
                kernel[(len(chunks) // 2,)](
                    chunks, *arguments, **self._types, **how,
                    aligned=aligned, chunk=CHUNK, block=BLOCK, num_warps=WARPS,
                )  # fmt: skip

    def _decide(self, settling: Settling | None) -> None:
        self._words[:DECISIONS] = NOTHING
        self._words[LIVE] = 1
        if settling is not None:
            decided = [settling.pends, settling.rates is not None, settling.closes, False, settling.number]
            self._words[PENDS:NONFINITE] = array("q", map(int, decided))

    def _weigh(self, rates: Sequence[float]) -> None:
        self._words[HEAD + 2 * self._count :] = bits(rates)
        self._rates, self._sent = rates, ()

    def _place(self, tensors: Sequence[Tensor], *, again: bool = False) -> Tensor:
        """Upload where tensors lie, and all else, if it has changed; where it is."""
        now, capturing = [tensor.data_ptr() for tensor in tensors], is_capturing(self._device)
        if now != self._known:
            addresses(tensors)  # tells of memory that is not there
            self._words[HEAD : HEAD + len(now)] = array("q", now)
            self._cut(now, capturing)
            self._known, self._sent = now, ()
        numbers = tuple(self._numbers[which] for which in range(DECISIONS, HEAD))
        if again or capturing or numbers != self._sent:
            self._words[DECISIONS:HEAD] = bits(numbers)
            self._sent = () if capturing else numbers
            target = torch.empty_like(self._on_device) if capturing else self._on_device
            source = send(self._words, target)
            self._kept += [target, source] if capturing else []
            return target
        return self._on_device

    def _cut(self, places: Sequence[int], capturing: bool) -> None:
        """The programs' stretches; those of parameters all of whose accesses are aligned apart."""
        sizes, count = self._cohort.sizes, self._count
        aligned = bytes(
            not (
                offset % ALIGNED_ELEMENTS
                or size % ALIGNED_ELEMENTS
                or any(at % ALIGNED_BYTES for at in places[p::count])
            )
            for p, (offset, size) in enumerate(zip(self._cohort.offsets, sizes, strict=True))
        )
        if aligned in self._cuts:
            self._chunks = self._cuts[aligned]
            return
        found = []
        for vectors in (True, False):
            listed = array("i")
            for p, size in enumerate(sizes):
                if bool(aligned[p]) is vectors:
                    for chunk in range(-(-size // CHUNK)):
                        listed.extend((p, chunk))
            if listed:
                target = torch.empty(len(listed), dtype=torch.int32, device=self._device)
                source = send(listed, target)
                self._kept += [target, source] if capturing else []
                found.append((vectors, target))
        self._chunks = found
        if not capturing:  # else it is filled when the graph is replayed
            self._cuts[aligned] = found


def is_capturing(device: torch.device) -> bool:
    """Whether what is launched now is recorded into a CUDA graph instead of run."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def send(numbers: array[int], target: Tensor) -> Tensor:
    """Copy numbers to a device without waiting for it; the host's copy, which torch keeps until it has been read."""
    source = torch.empty_like(target, device="cpu", pin_memory=target.device.type == "cuda")
    source.copy_(torch.frombuffer(numbers, dtype=target.dtype))
    target.copy_(source, non_blocking=True)
    return source


def bits(numbers: Sequence[float]) -> array[int]:
    """The bits of float64 numbers."""
    return array("q", array("d", numbers).tobytes())


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Launch on a device, where it is not the present one."""
    if device.type == "cpu" or torch.get_device_module(device).current_device() == device.index:
        return nullcontext()
    return torch.get_device_module(device).device(device)  # type: ignore[no-any-return]
