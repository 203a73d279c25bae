"""Which code runs the step for which parameters: the compiled one where it works, else torch's own operations."""

from __future__ import annotations

import logging

from rwalk.core.config import BackendName
from rwalk.core.eager import Eager
from rwalk.core.native import device, fused
from rwalk.core.state import Bucket
from rwalk.errors import RWalkError

__all__ = ["backend_of"]

log = logging.getLogger(__name__)

EAGER, FUSED, TRITON = Eager(), fused.Fused(), device.DeviceFused()
BACKENDS: dict[str, Eager] = {backend.name: backend for backend in (EAGER, FUSED, TRITON)}
_told: set[str] = set()


def backend_of(bucket: Bucket, choice: BackendName) -> Eager:
    """What runs the step for these parameters; asked once for each bucket.

    Raises:
        RWalkError: ``"fused"`` was asked for and cannot be had.
    """
    if bucket.backend is None:
        bucket.backend = _choose(bucket, choice).name
    return BACKENDS[bucket.backend]


def compiled_for(bucket: Bucket) -> tuple[Eager, str | None]:
    """The compiled code for a bucket's device; and why it cannot serve, if it cannot."""
    if bucket.device.type == "cpu":
        return FUSED, fused.why_not(bucket)
    return TRITON, device.why_not(bucket)


def _choose(bucket: Bucket, choice: BackendName) -> Eager:
    if choice == "eager":
        return EAGER
    compiled, reason = compiled_for(bucket)
    if reason is None:
        return compiled
    if choice == "fused":
        raise RWalkError(f"backend='fused': {reason}; take backend='auto' or 'eager'")
    if reason not in _told:
        _told.add(reason)
        log.info("backend='auto' takes eager code: %s", reason)
    return EAGER
