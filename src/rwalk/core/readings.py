"""What an RWalk says of itself: counters, importances, the penalty, a report. Nothing here changes what it learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from rwalk.core import equations as F
from rwalk.core.hooks import is_inner_step
from rwalk.core.native import backend_of
from rwalk.core.sharding import is_sharded, join, local, over_processes, weights_in_sums
from rwalk.core.steps import Steps
from rwalk.core.strength import strongest_stable
from rwalk.core.tracking import Tracker
from rwalk.errors import RWalkError
from rwalk.module_state import quietly

if TYPE_CHECKING:
    from rwalk.core.report import Report
    from rwalk.core.state import Bucket, Tracked

__all__ = ["Kind", "Readings"]

Kind = Literal["penalty", "fisher", "score"]
#: Of suggest_lambda: see docs/choosing.md.
TARGET = 5.0
KINDS = {"penalty": "importance", "fisher": "fisher", "score": "score"}


class Readings:
    """The half of ``RWalk`` that only reads. ``RWalk`` is what to use."""

    model: nn.Module
    optimizer: Optimizer
    _tracker: Tracker
    _steps: Steps
    _held_share: tuple[int, float]

    def __repr__(self) -> str:
        """What runs, what has ended, how much is held. Of sharded parameters this process's."""
        from rwalk.core.report import share_held

        config = self._tracker.config
        if self._held_share[0] != self.tasks:
            self._held_share = (self.tasks, share_held(self._tracker.resident()))
        names = {bucket.backend or config.backend for bucket in self._tracker.buckets}
        return (
            f"RWalk({type(self.model).__name__}, backend={'+'.join(sorted(names)) or config.backend}, "
            f"tasks={self.tasks}, steps={self.steps}, held={self._held_share[1]:.1%} of the weights, "
            f"ewc_lambda={config.ewc_lambda:g})"
        )

    @property
    def tasks(self) -> int:
        """Tasks consolidated so far."""
        return self._steps.tasks

    @property
    def steps(self) -> int:
        """Optimizer steps seen so far, of those that count, as far as is known of the last one.

        Where a GPU counts them, this waits for it; so do the other counters.
        """
        self._steps.look()
        pending = self._steps.pending
        return self._steps.steps + int(pending is not None and not pending.is_void and not self._steps.begun)

    @property
    def task_steps(self) -> int:
        """Those of this task."""
        taken = self.steps - self._steps.steps
        return self._steps.task_steps + taken

    @property
    def window_steps(self) -> int:
        """Those of the open window."""
        taken = self.steps - self._steps.steps
        closes = taken and self._steps.closes_window(1)
        return 0 if closes else self._steps.window_steps + taken

    @property
    def skipped(self) -> int:
        """Steps that this object has seen and that do not count: skipped, raised, or without a finite gradient."""
        self._steps.look()
        pending = self._steps.pending
        return self._steps.skipped + int(pending is not None and pending.is_void and not self._steps.begun)

    @property
    def backend(self) -> str:
        """What runs the equations now: ``"fused"`` (in C), ``"triton"``, ``"eager"``; several are joined by ``"+"``.

        Raises:
            RWalkError: The fused kernels were asked for and cannot be had.
        """
        names = {backend_of(bucket, self._tracker.config.backend).name for bucket in self._tracker.buckets}
        return "+".join(sorted(names)) or self._tracker.config.backend

    def penalty(self) -> Tensor:
        r""":math:`\lambda \sum_i (F_i + s_i)(\theta_i - \theta^*_i)^2` at the present weights (Eq. 8), for logging.

        Returns:
            A scalar tensor; 0 before the first ``consolidate``. Differentiable, but do not add it to the loss of an
            attached RWalk: its gradient is added already. Where parameters are sharded it is not differentiable, and
            all processes must call it.
        """
        whole = torch.zeros((), dtype=torch.float32)
        if not self.tasks:
            return whole
        self._make_room()
        shards: list[Tensor] = []
        values: list[Tensor] = []
        for cohort in self._tracker.resident():
            for entry, importance, anchor in zip(
                cohort.entries, cohort.views("importance"), cohort.views("anchor"), strict=True
            ):
                weights = local(entry.parameter).to(anchor.dtype)
                value = F.penalty(importance, weights, anchor, self._tracker.config.strength)
                if is_sharded(entry.parameter):
                    shards.append(entry.parameter)
                    values.append(value.detach())
                else:
                    whole = whole.to(value) + value
        if not shards:
            return whole
        found = torch.stack([value.to(values[0]) for value in values]).double()
        sharded = (found * found.new_tensor(weights_in_sums(shards))).sum()
        return whole + over_processes(sharded, shards, "sum").to(values[0])

    @quietly
    def importances(self, kind: Kind = "penalty") -> dict[str, Tensor]:
        r"""What each weight is worth, by parameter name.

        Args:
            kind: ``"penalty"``, the frozen :math:`F + s` of the penalty, scaled; ``"fisher"`` or ``"score"``, the
                running values, unscaled (score: sum over windows on top of the averaged score of past tasks).

        Returns:
            Copies, each in its parameter's shape. Parameters that never had a gradient are absent. Shards are put
            together, which all processes have to take part in.

        Raises:
            ValueError: Unknown ``kind``.
        """
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: expected one of {', '.join(map(repr, KINDS))}")
        self._tracker.check()
        self.settle()
        self._make_room()
        values = {}
        for bucket, entry in self._seen():
            value = bucket.view(entry, KINDS[kind]).to(bucket.dtype, copy=True)
            if kind == "score" and self._tracker.config.keeps_task_score:
                value += bucket.view(entry, "task_score")
            values[entry.name] = join(value, entry.parameter)
        return values

    @quietly
    def anchors(self) -> dict[str, Tensor]:
        r"""Where the past holds each weight, :math:`\theta^*` of Eq. 8, by parameter name.

        With ``anchor_at="average"`` (``RWalkConfig.laplace()``) and ``anchors="latest"`` that is an average of the last
        task's iterates, nearer to a minimum than the last one. To end a task there, as ``WeightAveragePlugin`` does:

            rwalk.consolidate(batches)
            model.load_state_dict(rwalk.anchors(), strict=False)

        Names are the bare model's. Of one that is wrapped, load them into what is inside (``model.module`` of DDP,
        ``model._orig_mod`` of ``torch.compile``): with ``strict=False`` the wrapper would take none, and not say so.

        Returns:
            Copies, each in its parameter's shape, in the state's dtype; none before the first ``consolidate``. Weights
            that joined since have the value with which they joined. Parameters that never had a gradient, and buffers,
            are absent. Shards are put together, which all processes have to take part in.
        """
        if not self.tasks:
            return {}
        self._tracker.check()
        self._make_room()
        return {
            entry.name: join(bucket.view(entry, "anchor").to(bucket.dtype, copy=True), entry.parameter)
            for bucket, entry in self._seen()
        }

    def _seen(self) -> Iterator[tuple[Bucket, Tracked]]:
        """Parameters that ever had a gradient, each with where its state is."""
        for bucket in self._tracker.buckets:
            for entry in bucket.starts:
                if entry.last_task is not None:
                    yield bucket, entry

    def report(self, loss: Tensor | float | None = None, *, hints: Iterable[str] = ()) -> Report:
        r"""Is it doing anything? Per layer what is held, how far it has moved, and how hard the penalty pulls.

        From what is kept of the last step, :math:`\|\nabla \text{penalty}\| / \|\nabla \mathcal L\|`: no forward or
        backward pass, one pass over the state. Nothing changes. Where that step is in the state by now
        (``state_dict`` or ``importances`` was asked for), the penalty's gradient is taken where the weights are. If
        parameters are sharded, all processes must call it.

        Args:
            loss: The loss of the last step without the penalty, to be told the penalty's part of both.
            hints: Warnings of the caller's own, which join those that are found.

        Returns:
            A table (``print`` it), its rows (``layers``), figures for a logger (``metrics()``) and ``warnings``: never
            consolidated, a penalty without effect (ratio < 1e-3) or choking (> 10), an unstable explicit step, outputs
            that were added and have no exemplars' protection, weights that another optimizer or copy trains.

        Raises:
            ValueError: ``loss`` is not a finite number ≥ 0.
        """
        from rwalk.core import report, warning_signs

        told = report.loss_told(loss)
        self._tracker.check()
        self._make_room()
        steps, tracker = self._steps, self._tracker
        layers, total = report.layers_of(
            tracker.resident(), tracker.config, steps.last, is_settled=steps.pending is None
        )
        signs = warning_signs.signs(tracker, self.optimizer, self.tasks, self.task_steps)
        return report.report_of(
            self.backend, (self.tasks, self.task_steps), tracker.config, layers, total,
            loss=told, warnings=[*signs, *hints],
        )  # fmt: skip

    def report_every(self, steps: int, call: Callable[[Report], object]) -> RemovableHandle:
        """Have every so many optimizer steps reported, to a logger say, in a loop of your own.

        Args:
            steps: Of the optimizer that is followed now.
            call: Gets a ``Report``; ``lambda report: writer.add_scalars("rwalk", report.metrics())`` for instance.

        Returns:
            ``remove()`` ends it.

        Raises:
            ValueError: ``steps`` is not a whole number ≥ 1.
        """
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps={steps!r}: expected a whole number of optimizer steps ≥ 1")
        taken = count(1)

        def after_step(optimizer: Optimizer, *_: Any) -> None:
            if not is_inner_step(optimizer) and next(taken) % steps == 0:
                call(self.report())

        return self.optimizer.register_step_post_hook(after_step)

    def suggest_lambda(self, target: float = TARGET) -> float:
        r"""The strength at which the penalty's gradient would be ``target`` times as long as the loss's, by last step.

        Train some twenty to fifty steps of the new task under a weak penalty, ask, and go on with the answer:
        ``rwalk.config = rwalk.config.replace(ewc_lambda=rwalk.suggest_lambda())``. Where plain SGD takes the penalty's
        gradient, the answer stays below half of what makes its step diverge.

        Args:
            target: :math:`\|\nabla \text{penalty}\| / \|\nabla \mathcal L\|`; larger holds tighter.

        Returns:
            A value for ``ewc_lambda``.

        Raises:
            ValueError: ``target`` is not a finite number > 0.
            RWalkError: No task has ended, no step of the next one has moved a weight that is held, or the last step did
                not count.
        """
        if not (isinstance(target, (int, float)) and 0.0 < target < math.inf):
            raise ValueError(f"target={target!r}: expected a finite number > 0, the ratio of the two gradients")
        if not self.tasks:
            raise RWalkError("suggest_lambda() before anything is protected: consolidate() or protect(batches) first")
        found = self.report().lambda_at(target) if self.task_steps else None
        if found is None or not math.isfinite(found):
            if not self._last_gradient_is_finite():
                raise RWalkError(
                    "suggest_lambda() compares the gradients of the last step, and that step did not count: its "
                    f"gradient was not finite (skipped: {self.skipped}). Ask again after one that counts"
                )
            raise RWalkError(
                "suggest_lambda() compares the penalty's gradient with the loss's, and no step of the new task has "
                "moved a weight that is held: take some twenty steps first"
            )
        limit = strongest_stable(self._tracker, self.optimizer, self._tracker.peaks("importance"))
        return min(found, limit / 2.0)

    def _last_gradient_is_finite(self) -> bool:
        last = self._steps.last
        return all(
            bool(bucket.view(entry, "gradient").isfinite().all())
            for bucket in self._tracker.buckets
            for entry in bucket.starts
            if "gradient" in bucket.flat and (last is None or entry in last)
        )

    def plot_importances(self, kind: Kind = "penalty", *, ax: Any = None, layers: int = 20) -> Any:
        """Draw each layer's share of the importance, and the share of its weights that carries half of it.

        Args:
            kind: As in ``importances``.
            ax: matplotlib's axes to draw into; a new figure's if None.
            layers: Draw so many, those with most.

        Returns:
            The axes.

        Raises:
            MissingExtraError: matplotlib is not installed.
            ValueError: Unknown ``kind``.
            RWalkError: There are no importances yet.
        """
        from rwalk.core.picture import draw_importances

        return draw_importances(self.importances(kind), kind, ax=ax, layers=layers)

    @quietly
    def settle(self) -> None:
        """Bring the last step into the state, the weights being where they are.

        It is called by all that shows the state. Call it before you replace weights other than by
        ``load_state_dict``. Settled now or when the next gradient comes, the state has the same bits, if nothing moves
        the weights in between.
        """
        self._steps.settle()

    @quietly
    def _make_room(self) -> None:
        self._steps.make_room()
