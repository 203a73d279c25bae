"""Which code runs the equations for which parameters."""

from __future__ import annotations

import logging

from rwalk.core.buckets import Bucket
from rwalk.core.config import BackendName
from rwalk.core.eager import Eager
from rwalk.core.native.fused import Fused, why_not
from rwalk.errors import RWalkError

__all__ = ["Backends"]

log = logging.getLogger(__name__)
_told: set[str] = set()


class Backends:
    """Chooses between eager and fused code, bucket by bucket.

    Args:
        choice: ``config.backend``.
    """

    def __init__(self, choice: BackendName) -> None:
        self.choice = choice
        self._eager, self._fused = Eager(), Fused()

    def of(self, bucket: Bucket) -> Eager:
        """What runs the equations for these parameters.

        Raises:
            RWalkError: ``"fused"`` was asked for and cannot be had.
        """
        if self.choice == "eager":
            return self._eager
        reason = why_not(bucket)
        if reason is None:
            return self._fused
        if self.choice == "fused":
            raise RWalkError(f"backend='fused': {reason}; take backend='auto' or 'eager'")
        if reason not in _told:
            _told.add(reason)
            log.info("backend='auto' takes eager code: %s", reason)
        return self._eager
