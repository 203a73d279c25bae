"""Steps that a GPU counts by itself, so that the host does not wait for it, and CUDA graphs can be replayed.

Whether a step counts is known on the device first: its gradient may not be finite, or a fused optimizer may skip it.
Waiting for the answer would stop the host once a step. So the device keeps a ledger, and decides from it what the next
pass does; the host asks for it only where the state is shown or changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rwalk.core.config import RWalkConfig
from rwalk.core.native import TRITON, backend_of
from rwalk.core.native.argument import is_capturing
from rwalk.core.native.device import argument_of, count_step, fits
from rwalk.core.native.words import GENERATION, LEDGER, NONFINITE, OPEN, PENDING, SKIPPED, STALE, STEPS
from rwalk.core.state import Cohort, Keeping, Settling
from rwalk.errors import RWalkError

if TYPE_CHECKING:
    from rwalk.core.steps import Steps

__all__ = ["Ahead"]

COUNTERS = slice(STEPS, SKIPPED + 1)
NAMES = ("steps", "task_steps", "window_steps", "skipped")
NOBODY = -1


class Ahead:
    """The ledger of steps that the device counts.

    Attributes:
        leads: Whether the device may have counted on since the host last looked.
        captured: Whether a CUDA graph holds such steps, which may be replayed at any time.
    """

    def __init__(self) -> None:
        self.leads = self.captured = False
        self._ledger = torch.zeros(LEDGER, dtype=torch.int64)
        self._generation = 0
        self._cohorts: list[Cohort] = []
        self._resting: list[Cohort] = []
        self._config: RWalkConfig | None = None
        self._penalised = False
        self._settling: list[Settling] = []

    def __reduce__(self) -> Any:
        """A copy, for which the host has counted, has a ledger of its own, and no graph knows it."""
        return Ahead, ()

    def begin(
        self,
        steps: Steps,
        cohorts: list[Cohort],
        resting: list[Cohort],
        config: RWalkConfig,
        *,
        penalised: bool,
    ) -> None:
        """Let the device count from here on: the host's counters, and whether a step is pending, go to the ledger.

        Args:
            steps: Where the host stands.
            cohorts: What takes part in the steps.
            resting: What else has state, and a window to close.
            config: The settings.
            penalised: Whether the penalty's gradient is added.
        """
        device = cohorts[0].bucket.device
        if self._ledger.device != device:
            self._ledger = self._ledger.to(device)
        if cohorts is not self._cohorts or (config, penalised) != (self._config, self._penalised):
            self._generation += 1  # what was captured before does not fit any more
            self._cohorts, self._config, self._penalised = cohorts, config, penalised
            self._resting = resting
            rates = [cohort.prepared.get("rates", (0.0, None))[1] for cohort in cohorts]
            self._settling = [Settling(True, rate, True, config.damping_value, 0) for rate in rates]
        pending = steps.pending
        voids = pending.voids if pending is not None else []
        written = [0] * NONFINITE + [int(pending is not None and pending.is_void)]
        written += [getattr(steps, name) for name in NAMES]
        written += [pending is not None, steps.window_is_open, self._generation, 0]
        self._write(written)
        if voids:
            self._ledger[NONFINITE] |= torch.stack(voids).any()
        self.leads = True

    def can_go_on(self, cohorts: list[Cohort], config: RWalkConfig, keepings: Sequence[Keeping]) -> bool:
        """Whether this step is like the ones that the device counts."""
        same = cohorts is self._cohorts and config is self._config
        return self.leads and same and all(map(fits, cohorts, keepings))

    def step(self, config: RWalkConfig, keepings: Sequence[Keeping]) -> None:
        """Bring the pending step in and keep this one, as far as the device finds that they count."""
        self.captured = self.captured or is_capturing(self._ledger.device)
        count_step(self._ledger, config, self._generation)
        for cohort, keeping, settling in zip(self._cohorts, keepings, self._settling, strict=True):
            argument_of(cohort, config).step(config, settling, keeping, self._ledger)
        for cohort in self._resting:  # whose windows close all the same
            closing = Settling(False, None, True, config.damping_value, 0)
            argument_of(cohort, config).step(config, closing, None, self._ledger)

    def hears(self, skipped: Tensor) -> bool:
        """Whether the device counts, and has what this tensor says."""
        return self.leads and skipped.device == self._ledger.device

    def doubt(self, skipped: Tensor) -> None:
        """The optimizer has skipped the step, if this one-element tensor on the device is not 0."""
        self._ledger[NONFINITE] |= skipped.reshape(()) != 0

    @property
    def void(self) -> Tensor:
        """Whether the pending step does not count: one byte on the device, 0 if it does."""
        return self._ledger.view(torch.uint8)[8 * NONFINITE]

    def look(self, steps: Steps) -> None:
        """Wait for the device and take over its counters; it may count on.

        Raises:
            RWalkError: Inside a graph's capture, or a graph was replayed that does not fit any more.
        """
        device = self._ledger.device
        if is_capturing(device):
            raise RWalkError(
                "RWalk's state is asked for, or changed, while a CUDA graph is captured, which cannot wait for the "
                "device: do it before the capture or after it"
            )
        found = self._ledger.tolist()
        before = steps.steps
        counted = dict(zip(NAMES, found[COUNTERS], strict=True))
        pending, members = bool(found[PENDING]), [e for cohort in self._cohorts for e in cohort.entries]
        steps.take_over(counted, members, pending=pending, is_void=bool(found[NONFINITE]), is_open=bool(found[OPEN]))
        if steps.steps > before:
            for entry in members:
                entry.last_task = steps.tasks
        self._tell_stale(found[STALE])

    def end(self, steps: Steps) -> None:
        """As ``look``; from here on the host counts, and replays are told until ``begin`` is called again."""
        if self.leads:
            self.look(steps)
            self.leads = False
            if self.captured:
                self._ledger[GENERATION] = NOBODY
        elif self.captured:
            self._tell_stale(int(self._ledger[STALE]))

    def resume(self, steps: Steps) -> None:
        """The host has changed what it wanted to: graphs that still fit may be replayed again."""
        if self.captured and not self.leads and self._config is not None:
            self.begin(steps, self._cohorts, self._resting, self._config, penalised=self._penalised)

    def outdate(self) -> None:
        """What was captured does not fit any more; the host counts."""
        self.leads = False
        if self.captured:
            self._ledger[GENERATION] = NOBODY
        self._cohorts, self._resting, self._config = [], [], None

    def _tell_stale(self, replayed: int) -> None:
        if replayed:
            self._ledger[STALE] = 0
            raise RWalkError(
                f"a CUDA graph replayed {replayed} steps that RWalk did not follow: it was captured before "
                "consolidate(), load_state_dict(), another config or other parameters. Capture it anew after these"
            )

    def _write(self, numbers: list[int]) -> None:
        host = torch.tensor([int(number) for number in numbers], dtype=torch.int64)
        self._ledger.copy_(host.pin_memory() if self._ledger.device.type == "cuda" else host, non_blocking=True)


def is_steady(cohorts: Sequence[Cohort], config: RWalkConfig) -> bool:
    """Whether steps of these parameters are all alike: the first updates of their Fisher are over."""
    if config.damping_scale == "relative" or config.nonfinite == "raise" or config.anchor_at == "average":
        return False
    averages = config.fisher_source == "step"
    return not averages or all(cohort.prepared.get("rates", (None,))[0] == config.ewc_alpha for cohort in cohorts)


def can_lead(residents: Sequence[Cohort], config: RWalkConfig) -> bool:
    """Whether one device has kernels for all that has state, and nothing of it grows or has left the optimizer."""
    if len({cohort.bucket.device for cohort in residents}) != 1:
        return False
    if any(backend_of(cohort.bucket, config.backend) is not TRITON or cohort.sharded for cohort in residents):
        return False
    return not any(entry.fresh is not None or entry.left_at is not None for c in residents for entry in c.entries)
