"""Which code runs the equations for which parameters."""

from __future__ import annotations

import logging
from typing import Any
from weakref import WeakKeyDictionary

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
        self._chosen: WeakKeyDictionary[Bucket, Eager] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """A copy chooses for its own buckets."""
        return {"choice": self.choice}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Choose anew."""
        self.__init__(kept["choice"])  # type: ignore[misc]

    def of(self, bucket: Bucket) -> Eager:
        """What runs the equations for these parameters.

        Raises:
            RWalkError: ``"fused"`` was asked for and cannot be had.
        """
        found = self._chosen.get(bucket)
        if found is None:
            found = self._chosen[bucket] = self._choose(bucket)
        return found

    def _choose(self, bucket: Bucket) -> Eager:
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
