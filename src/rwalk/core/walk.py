"""One optimizer step after another, window by window."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rwalk.core import accounting, windows
from rwalk.core.backends import Backends
from rwalk.core.config import RWalkConfig
from rwalk.core.parts import Part
from rwalk.core.tracking import Tracker
from rwalk.core.witness import Witness

__all__ = ["Walk"]

log = logging.getLogger(__name__)


class Walk:
    """Takes the state through steps: what was begun and has not ended, and what the next step has yet to settle.

    A step may be skipped after it was begun, so in general it is accounted for around it: gradients and weights are
    kept before, Fisher and loss change follow after. One that is certain is accounted for before it altogether, in a
    single pass over memory; where it has led is seen when the next one begins, or by ``settle``.

    What else moves weights between two steps (restoring the best epoch's, clipping, averaging) is no part of the walk.
    If it happens while a step is to be settled, the open window starts anew, and until the task ends steps are
    accounted for around them.

    Args:
        tracker: The parameters in play, and all settings.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.backends = Backends(tracker.config.backend)
        self._tracker = tracker
        self._closes = False
        self._begun: list[Part] | None = None
        self._waiting: list[Part] | None = None
        self._witness = Witness()
        self._only_steps_move = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy has no step that has begun."""
        vars(self).update(state)
        with torch.no_grad():
            self.drop_step()

    @property
    def _config(self) -> RWalkConfig:
        return self._tracker.config

    @property
    def is_stepping(self) -> bool:
        """Whether a step has begun and not ended."""
        return self._begun is not None

    def begin(
        self,
        *,
        step: int,
        opens: bool,
        closes: bool,
        penalised: bool,
        certain: bool,
        grad_scale: Tensor | float | None,
        gradients: Mapping[nn.Parameter, Tensor] | None,
    ) -> None:
        """Read gradients and weights; add the penalty's gradient.

        Args:
            step: The run's number of the step.
            opens: It is its window's first.
            closes: It is its window's last.
            penalised: Whether the penalty's gradient is added.
            certain: The step will be taken.
            grad_scale: As ``RWalk.before_step`` has it.
            gradients: As ``RWalk.before_step`` has them.
        """
        config, backends = self._config, self.backends
        parts = self._tracker.stepping()
        if self._waiting is not None and self._witness.sees_a_move():
            self.settle()
        if certain and grad_scale is None and gradients is None and self._can_wait(parts):
            goes_on = self._waiting is parts and not opens
            self._make_ready(parts, opens=opens)
            self._begun, self._waiting = parts, parts
            try:
                accounting.advance(parts, config, backends, step=step, opens=opens, closes=closes, penalised=penalised)
            except BaseException:
                self.drop_step()
                raise
            if not goes_on:  # else they are where they were last seen
                self._witness.look(parts)
        else:
            self.settle()
            if opens:
                windows.begin(self._tracker.resident(), config)
                windows.remember_fisher(self._tracker.buckets, config)
            accounting.read(parts, config, backends, grad_scale=grad_scale, instead=gradients, penalised=penalised)
        self._begun, self._closes = parts, closes

    def end(self, *, step: int, pulled_by: Optimizer | None) -> bool:
        """Account for the step just taken.

        Args:
            step: The run's number of the step.
            pulled_by: Whose learning rates the penalty's proximal step has, if it takes one.

        Returns:
            Whether it was its window's last.
        """
        parts, self._begun = self._begun or [], None
        if pulled_by is not None:
            accounting.pull_to_anchor(parts, self._config, self.backends, pulled_by)
        if self._waiting is not parts:
            accounting.account(parts, self._config, self.backends, step)
        if self._closes:
            self.close_window(step)
        if self._waiting is not None:
            self._witness.look(self._waiting)
        return self._closes

    def drop_step(self) -> None:
        """Forget the step that was begun; nothing of it is kept."""
        begun, self._begun = self._begun, None
        if begun is not None and begun is self._waiting:
            self._waiting = self._tracker.renewed(begun)
            accounting.take_back(self._waiting, self.backends)
            if self._witness.sees_a_move():  # the optimizer got half-way, or weights were restored since
                self._begin_window_anew(self._waiting)
                self._witness.forget()
            self._witness.look(self._waiting)

    def settle(self) -> None:
        """Bring Fisher and loss change up to date with the last step, the weights being where they are."""
        if self._waiting is not None and self._begun is not self._waiting:
            waiting, self._waiting = self._waiting, None
            moved = self._witness.sees_a_move()
            self._witness.forget()
            self._tracker.make_room()
            parts = self._tracker.renewed(waiting)
            accounting.settle(parts, self._config, self.backends)
            if moved:
                self._begin_window_anew(parts)
                self._only_steps_move = False
                log.info(
                    "weights were moved between two optimizer steps, or after the last one (restored, clipped, "
                    "averaged?): what the open window had gathered is dropped, and until the task ends each step is "
                    "accounted for in two passes"
                )

    def close_window(self, step: int) -> None:
        """Turn the open window into a score."""
        if self._config.window == "step":
            return
        waiting, self._waiting = self._tracker.renewed(self._waiting or []), None
        mean = None
        if self._config.damping_scale == "relative":
            mean = windows.mean_distance(self._tracker.resident(), self._config, self.backends)
        idle = self._tracker.idle(waiting)
        windows.close(idle, waiting, self._config, self.backends, step=step, mean_distance=mean)

    def drop_window(self) -> None:
        """Forget what the open window has gathered, but for a step that has begun."""
        self.settle()
        windows.drop(self._tracker.buckets)
        if self._waiting is not None:
            self._begin_window_anew(self._waiting)

    def end_task(self) -> None:
        """Settle the last step; what has moved weights in this task may not do so in the next."""
        self.settle()
        self._only_steps_move = True

    def start_over(self) -> None:
        """Forget every step that is not accounted for: the state has been replaced."""
        self._begun = self._waiting = None
        self._only_steps_move = True
        self._witness.forget()

    def _begin_window_anew(self, parts: list[Part]) -> None:
        windows.begin(parts, self._config)
        for part in parts:
            part.zero("loss_change")

    def _can_wait(self, parts: list[Part]) -> bool:
        if not (self._config.sums_by_parts and self._only_steps_move):
            return False
        return self._waiting is parts or not any(
            part.bucket.storage.is_elsewhere("window_start", part.bucket.device)
            or any(slot.fresh is not None for slot in part.slots)
            for part in parts
        )

    def _make_ready(self, parts: list[Part], *, opens: bool) -> None:
        """Leave nothing to settle but what these parts wait for."""
        if opens:
            self._waiting = None
            windows.begin(self._tracker.idle(parts), self._config)
            windows.remember_fisher(self._tracker.buckets, self._config)
        elif self._waiting is not parts:
            self.settle()
            for part in parts:
                part.zero("gradient")
