"""Whether the penalty is too strong for the optimizer's explicit step."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

from torch import Tensor
from torch.optim import SGD, Optimizer

from rwalk.core import equations as F
from rwalk.core.state import Tracked
from rwalk.core.tracking import Tracker

__all__ = ["StrengthCheck", "instability", "strongest_stable"]

log = logging.getLogger(__name__)


def instability(
    tracker: Tracker, optimizer: Optimizer, peaks: dict[Tracked, float], *, waits: bool = True
) -> str | None:
    """How the explicit step diverges; None if it does not.

    Args:
        tracker: Knows the settings.
        optimizer: Whose steps.
        peaks: Each parameter's largest importance.
        waits: Ask for a learning rate that is on another device too.
    """
    config = tracker.config
    for lr, peak, limit in _groups(tracker, optimizer, peaks, waits=waits):
        curvature = 2.0 * config.strength * peak
        if curvature > limit:
            return (
                f"the penalty is too strong for a step of SGD: lr·2λ·max(F + s) is {lr * curvature:.3g} (lr {lr:.3g}, "
                f"ewc_lambda {config.ewc_lambda:.3g}), and above {lr * limit:.3g} weights diverge: take "
                "penalty='proximal', which is stable at any strength, or lower one of the two"
            )
    return None


def strongest_stable(tracker: Tracker, optimizer: Optimizer, peaks: dict[Tracked, float]) -> float:
    """The ``ewc_lambda`` above which the explicit step diverges; infinite where none does."""
    factor = 2.0 * tracker.config.penalty_factor
    limits = [limit / (factor * peak) for _, peak, limit in _groups(tracker, optimizer, peaks) if factor * peak > 0.0]
    return min(limits, default=math.inf)


def _groups(
    tracker: Tracker, optimizer: Optimizer, peaks: dict[Tracked, float], *, waits: bool = True
) -> Iterator[tuple[float, float, float]]:
    """Of each group whose explicit step may diverge: learning rate, largest importance, largest stable curvature."""
    if not isinstance(optimizer, SGD) or tracker.config.penalty != "gradient":
        return
    for index, group in enumerate(optimizer.param_groups):
        if isinstance(group["lr"], Tensor) and group["lr"].device.type != "cpu" and not waits:
            continue
        lr, peak = float(group["lr"]), max((p for e, p in peaks.items() if e.group == index), default=0.0)
        yield (
            lr,
            peak,
            F.largest_stable_curvature(lr, group["momentum"], group["dampening"], nesterov=group["nesterov"]),
        )


class StrengthCheck:
    """Tells of a penalty under which SGD's weights diverge: once, until settings or a task change that."""

    def __init__(self) -> None:
        self._peaks: dict[Tracked, float] | None = None
        self._is_too_strong = False

    def __call__(self, tracker: Tracker, optimizer: Optimizer, *, anew: bool = False) -> None:
        """Look at learning rates, one of which has changed.

        Args:
            tracker: Knows the importances and the settings.
            optimizer: Whose steps.
            anew: Importances or settings have changed.
        """
        if not isinstance(optimizer, SGD) or tracker.config.penalty != "gradient":
            return
        told = self._is_too_strong and not anew
        if anew or self._peaks is None:
            self._peaks = tracker.peaks("importance")
        found = instability(tracker, optimizer, self._peaks, waits=anew)
        self._is_too_strong = found is not None
        if found is not None and not told:
            log.warning("%s", found)
