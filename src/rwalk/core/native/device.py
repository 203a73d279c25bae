"""The step on a GPU: one Triton kernel for all parameters of a cohort, launched without waiting for the device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from rwalk.core.config import RWalkConfig
from rwalk.core.eager import Eager
from rwalk.core.native.argument import Argument, on
from rwalk.core.sharding import local
from rwalk.core.state import Bucket, Cohort, Keeping, Settling
from rwalk.errors import RWalkError

__all__ = ["DeviceFused", "argument_of", "count_step", "fits", "is_interpreted", "kernels", "why_not"]

DEVICES = ("cuda", "xpu")  # ROCm's name is cuda too


@cache
def kernels() -> tuple[ModuleType | None, str | None]:
    """The Triton kernels, or why there are none; asked once a process."""
    if find_spec("triton") is None:
        return None, "Triton is not installed"
    try:
        from rwalk.core.native import kernels as found
    except Exception as error:  # what Triton raises where it has no driver is not documented
        return None, f"Triton cannot be used ({error})"
    return found, None


def is_interpreted() -> bool:
    """Whether Triton runs its kernels in Python, on the CPU's memory (``TRITON_INTERPRET=1``): for tests."""
    found, _ = kernels()
    return found is not None and type(found.step).__module__ == "triton.runtime.interpreter"


def why_not(bucket: Bucket) -> str | None:
    """Why the kernels cannot serve a bucket, in one line; None if they can."""
    if bucket.device.type not in DEVICES and not is_interpreted():
        return f"the parameters are on {bucket.device.type}, for which there are no fused kernels"
    if type(bucket.require("fisher")[0]) is not Tensor:
        return "the state is not in real memory (a fake tensor)"
    if bucket.parameter_dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        return f"there are no fused kernels for {str(bucket.parameter_dtype).removeprefix('torch.')} parameters"
    if bucket.device.type == "cuda" and torch.version.hip is None:
        major, minor = torch.cuda.get_device_capability(bucket.device)
        if major < 7:
            return f"Triton needs a GPU of compute capability 7.0 or more, this one has {major}.{minor}"
    return kernels()[1]


class DeviceFused(Eager):
    """Runs the Triton kernels; gradients of another dtype than their parameters are left to ``Eager``."""

    name = "triton"

    def step(
        self, cohort: Cohort, config: RWalkConfig, settling: Settling | None, keeping: Keeping | None
    ) -> Tensor | bool:
        """As ``Eager.step``."""
        if keeping is not None and not fits(cohort, keeping):
            return super().step(cohort, config, settling, keeping)
        return argument_of(cohort, config).step(config, settling, keeping)

    def pull(
        self, cohort: Cohort, config: RWalkConfig, rates: Sequence[float | Tensor], void: Tensor | None = None
    ) -> None:
        """As ``Eager.pull``."""
        weights = argument_of(cohort, config).pull(config, rates, void)
        increment_version(weights)
        for entry, moved in zip(cohort.entries, weights, strict=True):
            if moved is not local(entry.parameter):
                local(entry.parameter).copy_(moved)


def fits(cohort: Cohort, keeping: Keeping) -> bool:
    """Whether the kernels know the gradients' dtype."""
    dtype = cohort.bucket.parameter_dtype
    return not [gradient for gradient in keeping.gradients if gradient.dtype is not dtype]


def argument_of(cohort: Cohort, config: RWalkConfig) -> Argument:
    """The kernels' argument for a cohort; laid out once."""
    found: Argument | None = cohort.prepared.get("device")
    if found is None or found.config is not config:
        found = cohort.prepared["device"] = Argument(_loaded(), cohort, config)
    return found


def count_step(ledger: Tensor, config: RWalkConfig, generation: int) -> None:
    """Have the device count the pending step in its ledger, and decide what the next pass does."""
    every = config.fisher_every if config.fisher_source == "step" else 0
    with on(ledger.device):
        _loaded().advance[(1,)](
            ledger, generation, config.delta_t or 0, every, phase_of_run=config.window_phase == "run", num_warps=1
        )


def _loaded() -> ModuleType:
    found, why = kernels()
    if found is None:
        raise RWalkError(f"the fused kernels are not there any more: {why}")
    return found
