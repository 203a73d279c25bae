"""The pending step and the open window: what comes into the state, and when.

Nothing of a step enters the state until the next gradient comes or someone asks for the state. What is kept of it until
then is its gradient and the weights it was taken at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from rwalk.core.ahead import Ahead, can_lead, is_steady
from rwalk.core.averaging import average, forget, restart
from rwalk.core.native import backend_of
from rwalk.core.native.argument import is_capturing
from rwalk.core.sharding import begin_worst, over_processes, weights_in_sums
from rwalk.core.state import Cohort, Settling, Tracked, arithmetic
from rwalk.core.tracking import Tracker
from rwalk.errors import RWalkError

__all__ = ["Pending", "Steps"]

log = logging.getLogger(__name__)

NOT_FINITE = "had a gradient that was not finite, or was skipped by the optimizer"


class Pending:
    """The last step: nothing of it is in the state but its gradient and the weights it was taken at.

    Args:
        entries: The parameters that take part in it.

    Attributes:
        grown: Those of them whose new elements have had their first gradient.
    """

    def __init__(self, entries: list[Tracked]) -> None:
        self.entries = entries
        self.grown = [entry for entry in entries if entry.fresh is not None]
        self.is_void = False  # as far as is known
        self.voids: list[Tensor] = []  # what a device has to say, 1 if it does not count
        self._answers: list[Callable[[], bool]] = []

    def doubt(self, voids: Iterable[bool | Tensor], cohorts: Sequence[Cohort] = ()) -> None:
        """Note whether the step does not count. What a device has to say is heard when the next step begins.

        Args:
            voids: Reasons that it does not; a tensor has one element, 0 if it does.
            cohorts: Where they are sharded, a step that does not count in one process counts in none.
        """
        late: list[Tensor] = []
        for void in voids:
            if isinstance(void, Tensor) and void.device.type != "cpu":
                late.append(void.reshape(()) != 0)
            else:
                self.is_void = self.is_void or bool(void)
        if [cohort for cohort in cohorts if cohort.sharded]:
            here = torch.stack(late).any().float() if late else torch.tensor(float(self.is_void))
            worst, work = begin_worst(here, [entry.parameter for cohort in cohorts for entry in cohort.entries])
            if worst.device.type == "cpu":
                self._answers.append(lambda: (work.wait(), bool(worst))[1])
                return
            work.wait()
            late = [worst != 0]
        self.voids += late
        self._answers.extend(map(_arriving, late))

    def decide(self, is_void: bool) -> None:
        """The device has told whether it counts."""
        self.is_void, self.voids, self._answers = is_void, [], []

    def counts(self) -> bool:
        """Whether the step counts, waiting for the answers."""
        while self._answers:
            self.is_void = self._answers.pop()() or self.is_void
        return not self.is_void


def _arriving(flag: Tensor) -> Callable[[], bool]:
    """A flag that is on its way from a device to the host; asking for it waits for no more than that."""
    if flag.device.type != "cuda":
        return lambda: bool(flag)
    answer = torch.empty((), dtype=torch.bool, pin_memory=True)
    answer.copy_(flag, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record(torch.cuda.current_stream(flag.device))

    def arrive() -> bool:
        arrived.synchronize()
        return bool(answer)

    return arrive


class Steps:
    """Takes the state from step to step and from window to window.

    Args:
        tracker: The parameters in play, their state, and the settings.

    Attributes:
        tasks: Tasks that have ended.
        steps: Steps in the state.
        task_steps: Those of this task.
        window_steps: Those of the open window.
        skipped: Steps that began and do not count.
        pending: The step that is not in the state yet.
        last: Who took part in the last step of this task, whose gradient and weights are kept; None if there was none.
        begun: Whether it has begun and not ended.
        window_is_open: Whether the window's start is known: from its first gradient on, and where the last window has
            closed in the same pass; but not once weights may have moved before a first gradient.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.tasks = self.steps = self.task_steps = self.window_steps = self.skipped = 0
        self.pending: Pending | None = None
        self.last: list[Tracked] | None = None
        self.begun = self.window_is_open = False
        self.ahead = Ahead()
        self._told: set[str] = set()
        self._skipped_before = 0  # when weights were last averaged: where some are lost, a step does not count

    def begin(self, step: Pending) -> None:
        """A step is pending from now on: its gradient and weights are kept."""
        self.pending, self.last, self.begun = step, step.entries, True

    def settle(self) -> None:
        """Bring the pending step into the state, the weights being where it led."""
        if self.begun:
            return
        self.ahead.end(self)
        if self.pending is not None:
            self.make_room()
            self.bring_in(self.take_up())
        self.window_is_open = self.window_steps > 0
        self.ahead.resume(self)

    def make_room(self, joining: Sequence[Tracked] = ()) -> None:
        """Match the state with the parameters' present shapes, devices and dtypes."""
        self._tracker.make_room(joining, before=self._before_other_layout)

    def admit(self, entries: Sequence[Tracked], *, held: bool) -> None:
        """Make room for what takes part in the step that begins."""
        if not held and any(entry.placement is None for entry in entries):
            self.settle()  # whose window knows nothing of those that join
        self.make_room(entries)

    def look(self) -> None:
        """Wait for what devices have to say of the last step, and of others if they count by themselves."""
        if self.ahead.leads:
            self.ahead.look(self)
        elif self.pending is not None and not self.begun:
            self.pending.counts()

    def refuse_capture(self) -> None:
        """A step that the host has to decide cannot be captured.

        Raises:
            RWalkError: A CUDA graph is being captured.
        """
        if any(is_capturing(bucket.device) for bucket in self._tracker.buckets):
            raise RWalkError(
                "this step cannot be captured in a CUDA graph: RWalk's device counts steps by itself only once every "
                "parameter's Fisher has had its first updates, without damping_scale='relative', anchor_at='average' "
                "and nonfinite='raise', with fused kernels and whole parameters on one device. Take three steps more "
                "before the capture, or leave the optimizer's step out of it"
            )

    def void(self, skipped: bool | Tensor) -> Tensor | None:
        """What devices have to say of whether the pending step counts: not 0 if it does not; None if nothing."""
        if self.ahead.leads:
            return self.ahead.void
        voids = [] if self.pending is None else list(self.pending.voids)
        if isinstance(skipped, Tensor) and not voids:
            voids.append(skipped.reshape(()) != 0)
        return torch.stack([void.to(voids[0].device) for void in voids]).any() if voids else None

    def let_device_count(self, cohorts: list[Cohort], *, penalised: bool) -> None:
        """From this step on, which has begun, if it can."""
        config, pending = self._tracker.config, self.pending
        if pending is None or pending.grown or not is_steady(cohorts, config):
            return
        resting = self._tracker.resident(but=pending.entries)
        if can_lead([*cohorts, *resting], config):
            self.ahead.begin(self, cohorts, resting, config, penalised=penalised)

    def take_over(
        self, counted: dict[str, int], members: list[Tracked], *, pending: bool, is_void: bool, is_open: bool
    ) -> None:
        """Go on from what a device has counted."""
        if counted["skipped"] > self.skipped:
            self._tell_skipped(NOT_FINITE)
        vars(self).update(counted)
        self.window_is_open = is_open
        if not pending:
            self.pending = None
            return
        if self.pending is None:  # replayed
            self.pending, self.last = Pending(members), members
        self.pending.decide(is_void)

    def take_up(self) -> dict[Cohort, Settling]:
        """Count the pending step, if it counts, and close its window where it does not close with it.

        Returns:
            What is to be brought into the state, by cohort: at once, or in the pass that keeps the next step.
        """
        pending, config, tracker = self.pending, self._tracker.config, self._tracker
        if pending is None or not pending.counts():
            if pending is not None:
                self.drop(NOT_FINITE)
            self.window_is_open = self.window_steps > 0
            return {}
        if pending.grown:
            self._start_grown()
        self.pending = None
        self.steps += 1
        self.task_steps += 1
        self.window_steps += 1
        if config.anchor_at == "average" and self.task_steps % config.average_every == 0:
            average(tracker.resident(), mends=self.skipped > self._skipped_before)
            self._skipped_before = self.skipped
        closes = self.closes_window()
        relative = closes and config.damping_scale == "relative"
        damping = config.damping_value if closes else 0.0
        due = {}
        for cohort in tracker.cohorts(pending.entries):
            due[cohort] = Settling(True, self._rates(cohort), closes and not relative, damping, self.steps)
        for entry in pending.entries:
            entry.last_task = self.tasks
        if relative:  # which needs all distances first
            self.bring_in(due)
            due = {}
        if closes:
            self.close_window(tracker.resident(but=pending.entries if due else ()))
        return due

    def closes_window(self, more: int = 0) -> bool:
        """Whether the window is full, so many more steps having been taken."""
        config = self._tracker.config
        counted = self.steps if config.window_phase == "run" else self.window_steps
        return config.delta_t is not None and (counted + more) % config.delta_t == 0

    def bring_in(self, due: dict[Cohort, Settling]) -> None:
        """Bring steps that were taken up into the state, in a pass of their own."""
        config = self._tracker.config
        for cohort, settling in due.items():
            backend_of(cohort.bucket, config.backend).step(cohort, config, settling, None)

    def open_window(self) -> None:
        """Begin a window where the weights are now."""
        config, tracker = self._tracker.config, self._tracker
        self.window_is_open = True
        for cohort in tracker.resident() if config.window == "start" else ():
            cohort.gather("window_start", cohort.weights())
        for bucket in tracker.buckets:
            if config.window == "displaced":
                bucket.require("displacement")[0].zero_()
            if config.fisher_in_score == "window_start":
                fisher, remembered = bucket.require("fisher", "window_fisher")
                remembered.copy_(fisher)

    def close_window(self, cohorts: Sequence[Cohort]) -> None:
        """Turn the window's loss change into a score, and begin the next window where the weights are now."""
        config = self._tracker.config
        self.window_steps, self.window_is_open = 0, True
        if config.window == "step":
            return
        relative = config.damping_scale == "relative"
        mean = self._mean_distance(cohorts) if relative else 1.0
        for cohort in cohorts:
            damping, finfo = config.damping_value * mean, torch.finfo(cohort.bucket.dtype)
            if relative:  # where nothing moved, ΔL / ε stays finite
                damping = max(damping, finfo.tiny / finfo.eps)
            settling = Settling(False, None, True, damping, self.steps)
            backend_of(cohort.bucket, config.backend).step(cohort, config, settling, None)
            for entry in cohort.entries:
                entry.left_at = None

    def flush_window(self, cohorts: Sequence[Cohort]) -> None:
        """Score the unfinished window, if that is what becomes of it."""
        if self.window_steps and self._tracker.config.unfinished == "flush":
            self.close_window(cohorts)

    def drop_window(self) -> None:
        """Forget what the open window has gathered; and the pending step, unless it has only begun."""
        self.ahead.end(self)
        self._drop_window()
        self.ahead.resume(self)

    def _drop_window(self) -> None:
        for bucket in self._tracker.buckets:
            for quantity in bucket.flat.keys() & {"loss_change", "displacement"}:
                bucket.flat[quantity].zero_()
        self.window_steps, self.window_is_open = 0, False
        for entry in self._tracker.entries:
            entry.left_at = None
        restart(self._tracker.entries)
        if not self.begun:
            self.pending = None
        elif self.pending is not None:
            self.open_window()
            if self._tracker.config.window == "start":
                for cohort in self._tracker.cohorts(self.pending.entries):
                    cohort.gather("window_start", cohort.views("before"))

    def drop(self, why: str | None) -> None:
        """The pending step does not count; ``why`` is told once."""
        self.pending = None
        self.skipped += 1
        if why is not None:
            self._tell_skipped(why)

    def _tell_skipped(self, why: str) -> None:
        if "skipped" not in self._told:
            self._told.add("skipped")
            log.warning("a step %s: it leaves no trace in RWalk's state (RWalk.skipped counts such steps)", why)

    def drop_for_other_weights(self) -> None:
        """The weights were replaced: no step has led there."""
        self.ahead.end(self)
        restart(self._tracker.entries)
        if self.pending is None and not self.window_steps:
            return
        self.pending = None
        self._drop_window()
        self.ahead.resume(self)
        if "replaced" not in self._told:
            self._told.add("replaced")
            log.info("weights were replaced (load_state_dict): RWalk drops its last step and the open window")

    def end_task(self) -> None:
        """Another task has ended."""
        self.tasks += 1
        self.task_steps, self.last = 0, None
        self.ahead.outdate()
        if self._tracker.config.unfinished != "carry":
            self.drop_window()
        forget(self._tracker.buckets)
        self._tracker.forget_cohorts()

    def start_over(self, counters: dict[str, int]) -> None:
        """Go on from a state that was loaded."""
        self.ahead.outdate()
        vars(self).update(counters)
        self.pending, self.last, self.begun, self.window_is_open = None, None, False, self.window_steps > 0

    def _rates(self, cohort: Cohort) -> Sequence[float] | None:
        """For each parameter the weight of its squared gradient: 1 at its first update (Eq. 6). None: not now."""
        config = self._tracker.config
        if config.fisher_source != "step" or self.steps % config.fisher_every:
            return None
        alpha = config.ewc_alpha
        known: tuple[float, list[float]] | None = cohort.prepared.get("rates")
        if known is not None and known[0] == alpha:
            return known[1]
        last = int(1 / max(alpha, 1e-9)) + 1 if config.alpha_warmup else int(config.fisher_start == "first")
        rates, steady = [], True
        for entry in cohort.entries:
            steady = steady and entry.updates >= last
            warm = 1.0 / (entry.updates + 1) if config.alpha_warmup else alpha
            first = entry.updates == 0 and config.fisher_start == "first"
            rates.append(1.0 if first else max(alpha, warm))
            entry.updates = min(entry.updates, last) + 1
        if steady:
            cohort.prepared["rates"] = (alpha, rates)
        return rates

    def _before_other_layout(self) -> None:
        self.ahead.end(self)
        self.ahead.outdate()
        self._start_grown()

    def _start_grown(self) -> None:
        """Elements that joined by growth have had their first gradient, g: their average starts from g², and stays."""
        pending, config = self.pending, self._tracker.config
        if pending is None or self.begun or not pending.counts():
            return
        if config.fisher_source != "step" or (self.steps + 1) % config.fisher_every:
            return
        for entry in pending.grown:
            if entry.fresh is not None and config.fisher_start == "first":
                fisher, gradient = (self._tracker.view(entry, name) for name in ("fisher", "gradient"))
                fisher[entry.fresh] = gradient[entry.fresh].to(arithmetic(gradient.dtype)).square().to(fisher.dtype)
            entry.fresh = None
        pending.grown = []

    def _mean_distance(self, cohorts: Sequence[Cohort]) -> float:
        """The window's distance, averaged over all elements of all parameters (and all processes' shards)."""
        config = self._tracker.config
        entries = [entry for cohort in cohorts for entry in cohort.entries]
        parameters = [entry.parameter for entry in entries]
        weights = dict(zip(entries, weights_in_sums(parameters), strict=True))
        distance, count = 0.0, 0.0
        for cohort in cohorts:
            for weight, alike in cohort.grouped(weights).items():
                distance += weight * float(backend_of(cohort.bucket, config.backend).distance(alike, config))
                count += weight * alike.elements
        sums = torch.tensor([distance, count], dtype=torch.float64)
        total, count = over_processes(sums, parameters, "sum").tolist()
        return float(total / max(count, 1.0))
