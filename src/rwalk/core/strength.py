"""Whether the penalty is too strong for the optimizer's explicit step."""

from __future__ import annotations

import logging

from torch import Tensor
from torch.optim import SGD, Optimizer

from rwalk.core import equations as F
from rwalk.core.state import Tracked
from rwalk.core.tracking import Tracker

__all__ = ["StrengthCheck"]

log = logging.getLogger(__name__)


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
        config, groups = tracker.config, optimizer.param_groups
        if not isinstance(optimizer, SGD) or config.penalty != "gradient":
            return
        told, self._is_too_strong = self._is_too_strong and not anew, False
        if anew or self._peaks is None:
            self._peaks = tracker.peaks("importance")
        for index, group in enumerate(groups):
            if isinstance(group["lr"], Tensor) and group["lr"].device.type != "cpu" and not anew:
                continue  # which would wait for the device
            lr, peak = float(group["lr"]), max((p for e, p in self._peaks.items() if e.group == index), default=0.0)
            limit = F.largest_stable_curvature(lr, group["momentum"], group["dampening"], nesterov=group["nesterov"])
            curvature = 2.0 * config.strength * peak
            self._is_too_strong = self._is_too_strong or curvature > limit
            if curvature > limit and not told:
                told = True
                log.warning(
                    "the penalty is too strong for a step of SGD: lr·2λ·max(F + s) is %.3g (lr %.3g, ewc_lambda %.3g), "
                    "and above %.3g weights diverge: take penalty='proximal', which is stable at any strength, or "
                    "lower one of the two",
                    *(lr * curvature, lr, config.ewc_lambda, lr * limit),
                )
