"""RWalk: the object that a training loop holds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rwalk.core import accounting, consolidation, state
from rwalk.core.artifact import load_state, save_state
from rwalk.core.config import RWalkConfig
from rwalk.core.estimation import estimate_fisher
from rwalk.core.hooks import OptimizerHooks, base_optimizer, release
from rwalk.core.reading import importances, penalty_value
from rwalk.core.sharding import writes_files
from rwalk.core.tracking import Tracker
from rwalk.core.walk import Walk
from rwalk.errors import RWalkError

__all__ = ["RWalk"]

log = logging.getLogger(__name__)

Kind = Literal["penalty", "fisher", "score"]
KINDS = {"penalty": "importance", "fisher": "fisher", "score": "score"}


class RWalk:
    r"""Riemannian Walk on a model and the optimizer that trains it.

    Before every optimizer step the gradient :math:`g` and the weights are read, and the penalty's gradient is added to
    ``.grad`` in closed form; with what the step does to the weights, the Fisher (Eq. 6) and the loss change (Eq. 7) are
    brought up to date. No forward or backward pass is added and the model's mode is never touched.

    Args:
        model: The model. State is keyed by its parameter names.
        optimizer: What moves the parameters. Wrapped optimizers (Accelerate) are unwrapped.
        config: Settings; ``RWalkConfig()`` if None.
        attach: Follow the optimizer's own steps through its hooks. With False, call ``before_step`` when gradients are
            complete (unscaled, accumulated, synchronised) and ``after_step`` when the optimizer has stepped.

    Raises:
        TypeError: ``model`` is not a module or ``optimizer`` not an optimizer.
        RWalkError: The optimizer holds none of the model's parameters, maximises, calls its closure more than
            once a step (LBFGS), or has an RWalk attached already.

    Attributes:
        config: The settings. Another config may be assigned between steps (a schedule of ``ewc_lambda``, say) if its
            state is laid out alike.
        tasks: Tasks consolidated so far.
        steps: Optimizer steps seen so far (skipped ones not counted).

    Example:
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=1.0))
        >>> for x in torch.eye(2):                      # your loop, unchanged
        ...     optimizer.zero_grad()
        ...     _ = model(x).square().sum().backward()
        ...     _ = optimizer.step()
        >>> rwalk.consolidate()                         # end of a task
        >>> sorted(rwalk.importances())
        ['bias', 'weight']

    References:
        Chaudhry et al., *Riemannian Walk for Incremental Learning*, ECCV 2018, arXiv:1801.10112.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, config: RWalkConfig | None = None, *, attach: bool = True
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model={model!r}: expected a torch.nn.Module")
        config = config if config is not None else RWalkConfig()
        _check_config(config)
        self.model, self.optimizer = model, base_optimizer(optimizer)
        self.tasks = self.steps = self.task_steps = self.window_steps = 0
        self._tracker = Tracker(model, self.optimizer, config)
        self._walk = Walk(self._tracker)
        self._hooks: OptimizerHooks | None = None
        if attach:
            self.attach()

    def attach(self, optimizer: Optimizer | None = None, model: nn.Module | None = None) -> None:
        """Follow the optimizer through its step hooks.

        Args:
            optimizer: Another optimizer, to follow from now on; the same one if None.
            model: Another model with the same parameter names, to protect from now on; the same one if None.

        Raises:
            RWalkError: Already attached, another RWalk is attached to this optimizer, or the model lacks a parameter
                whose state is kept.
        """
        if self._hooks is not None:
            raise RWalkError("this RWalk is attached already; detach() it first")
        if optimizer is not None or model is not None:
            self.follow(model, optimizer)
        self._hooks = OptimizerHooks(self.optimizer, self)

    def follow(self, model: nn.Module | None = None, optimizer: Optimizer | None = None) -> None:
        """Go on with another model or optimizer, without attaching to it.

        Args:
            model: Another model with the same parameter names; the same one if None.
            optimizer: Another optimizer; the same one if None.

        Raises:
            RWalkError: Attached to the present optimizer, or the model lacks a parameter whose state is kept.
        """
        if self._hooks is not None:
            raise RWalkError("this RWalk is attached to its present optimizer; detach() it first")
        self.abandon_step()
        base = self.optimizer if optimizer is None else base_optimizer(optimizer)
        if base is not self.optimizer or (model is not None and model is not self.model):
            self._settle()
            self._tracker.follow(self.model if model is None else model, base)
            self.model, self.optimizer = self._tracker.model, base

    def detach(self) -> None:
        """Stop following the optimizer; all state stays, but for a step that was begun and never ended.

        Raises:
            RWalkError: Not attached.
        """
        if self._hooks is None:
            raise RWalkError("this RWalk is not attached, so there is nothing to detach")
        self._hooks.remove()
        self._hooks = None
        self.abandon_step()
        self._settle()

    @staticmethod
    def release(optimizer: Optimizer) -> bool:
        """Detach whichever RWalk follows this optimizer, when it is out of reach (a notebook's lost variable, say).

        Returns:
            Whether there was one.
        """
        return release(optimizer)

    def __getstate__(self) -> dict[str, Any]:
        """A copy is not attached: torch copies optimizers without their hooks."""
        return {**vars(self), "_hooks": None}

    @property
    def config(self) -> RWalkConfig:
        """The settings."""
        return self._tracker.config

    @config.setter
    def config(self, config: RWalkConfig) -> None:
        _check_config(config)
        self.config.check_successor(config)
        self._tracker.config = config

    @property
    def _has_penalty(self) -> bool:
        return bool(self.tasks and self.config.ewc_lambda)

    @property
    def backend(self) -> str:
        """What runs the equations now: ``"fused"`` or ``"eager"``; both, joined by ``"+"``, where parameters differ.

        Raises:
            RWalkError: The fused kernels were asked for and cannot be had.
        """
        names = {self._walk.backends.of(bucket).name for bucket in self._tracker.buckets}
        return "+".join(sorted(names)) or self.config.backend

    @property
    def attached(self) -> bool:
        """Whether the optimizer's own steps are followed."""
        return self._hooks is not None

    @torch.no_grad()
    def before_step(
        self,
        *,
        grad_scale: Tensor | float | None = None,
        gradients: Mapping[nn.Parameter, Tensor] | None = None,
        certain: bool = False,
    ) -> None:
        """Read gradients and weights; add the penalty's gradient (nothing in proximal mode).

        Call it where ``.grad`` holds the complete gradient of the plain loss. Only ``.grad`` is changed.

        Args:
            grad_scale: The factor by which gradients are still scaled (a fused optimizer under GradScaler). The
                penalty's gradient is scaled alike.
            gradients: Measure these instead of ``.grad`` (for comparison with codes that take theirs elsewhere).
            certain: The step will be taken, ``after_step(skipped=True)`` will not come: then one pass over memory does
                for both halves. An attached RWalk says so by itself.

        Raises:
            RWalkError: Called twice without ``after_step`` between.
        """
        if self._walk.is_stepping:
            raise RWalkError("before_step() called twice: after_step() must follow each optimizer step")
        self._walk.begin(
            step=self.steps + 1,
            opens=self.window_steps == 0 and self.config.window != "step",
            closes=self.config.fills_window(self.steps + 1, self.window_steps + 1),
            penalised=self._has_penalty and self.config.penalty == "gradient",
            certain=certain,
            grad_scale=grad_scale,
            gradients=gradients,
        )

    @torch.no_grad()
    def after_step(self, *, skipped: bool = False) -> None:
        """Account for the step that the optimizer has taken.

        Args:
            skipped: The optimizer did not step after all (GradScaler found inf). Nothing of it is kept.

        Raises:
            RWalkError: No ``before_step`` came first.
        """
        if not self._walk.is_stepping:
            raise RWalkError("after_step() without before_step(): call before_step() when the gradients are complete")
        if skipped:
            self._walk.drop_step()
            return
        self.steps += 1
        self.task_steps += 1
        self.window_steps += 1
        pulls = self._has_penalty and self.config.penalty == "proximal"
        if self._walk.end(step=self.steps, pulled_by=self.optimizer if pulls else None):
            self.window_steps = 0

    @torch.no_grad()
    def abandon_step(self) -> None:
        """Forget a step whose ``after_step`` will not come, because the optimizer raised.

        Nothing of it is kept, but for roundings if the step was said to be certain.
        """
        self._walk.drop_step()

    @torch.no_grad()
    def consolidate(self, batches: Iterable[Any] | None = None, forward: Callable[[Any], Tensor] | None = None) -> None:
        r"""End a task: average and scale the scores, freeze penalties and anchors.

        The unfinished window is scored or dropped first (``config.unfinished``). The Fisher goes on from where it is.
        If no optimizer step was seen since the last call, a warning is logged and nothing changes.

        Args:
            batches: The task's data, batches ``(x, ...)``; needed with ``fisher_source="loader"`` and refused without.
            forward: Maps a batch to scores of classes; the model on the batch's first entry if None.

        Raises:
            RWalkError: Called between ``before_step`` and ``after_step``, ``batches`` missing or not wanted, the model
                has other parameters than the optimizer moves, or Fisher or score not finite (then the penalty stays as
                it was).
        """
        if self._walk.is_stepping:
            raise RWalkError(
                "consolidate() called between before_step() and after_step(): let the optimizer step first"
            )
        if (batches is not None) != (self.config.fisher_source == "loader"):
            takes = "needs the task's data: consolidate(batches)" if batches is None else "takes no data"
            raise RWalkError(f"fisher_source={self.config.fisher_source!r} {takes}")
        self._tracker.check_model()
        if self.task_steps == 0 or not self._tracker.buckets:
            log.warning(
                "consolidate(): no optimizer step with gradients yet, or none since the last one: nothing changes"
            )
            return
        self._walk.end_task()
        residents = self._tracker.resident()
        if batches is not None:
            parameters = {entry.name: entry.parameter for part in residents for entry in part.watched}
            accounting.merge_fisher(residents, estimate_fisher(self.model, parameters, batches, forward), self.config)
        if self.window_steps and self.config.unfinished == "flush":
            self._walk.close_window(self.steps)
            self.window_steps = 0
        consolidation.freeze(self._tracker.buckets, residents, self.config, self.tasks)
        self.tasks += 1
        self.task_steps = 0
        if self.config.unfinished != "carry":
            self.drop_window()

    @torch.no_grad()
    def drop_window(self) -> None:
        """Forget what the unfinished window has gathered; the next step opens a new one."""
        self._walk.drop_window()
        self.window_steps = 0

    def penalty(self) -> Tensor:
        r""":math:`\lambda \sum_i (F_i + s_i)(\theta_i - \theta^*_i)^2` at the present weights (Eq. 8), for logging.

        Returns:
            A scalar tensor; 0 before the first ``consolidate``. Differentiable, but do not add it to the loss of an
            attached RWalk: its gradient is added already. Where parameters are sharded it is not differentiable, and
            all processes must call it.
        """
        return penalty_value(self._tracker.resident() if self.tasks else (), self.config.strength)

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
        self._settle()
        return importances(self._tracker, KINDS[kind])

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly where this stands: counters, config, and tensors by parameter name.

        Tensors are whole: where parameters are sharded over processes, all of them must call this, and each gets them
        in its host's memory.

        Raises:
            RWalkError: Called between ``before_step`` and ``after_step``.
        """
        return self._export()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a ``state_dict``. This object's own config stays in force.

        Raises:
            ValueError: The state is not rwalk's, or names or shapes do not match the model (nothing changes then).
        """
        counters = state.restore(self._tracker, state_dict)
        for name, value in counters.items():
            setattr(self, name, value)
        self._walk.start_over()

    def save(self, path: str | Path) -> None:
        """Write the state to a safetensors file, atomically.

        Of several processes only the first (rank 0) writes, since all have the same state. Where parameters are sharded
        over them, all must call this.
        """
        writes = writes_files()
        state_dict = self._export(kept=writes)
        if writes:
            save_state(state_dict, path)

    @classmethod
    def load(
        cls,
        path: str | Path,
        model: nn.Module,
        optimizer: Optimizer,
        config: RWalkConfig | None = None,
        *,
        attach: bool = True,
    ) -> RWalk:
        """Read a saved state into a new RWalk.

        Args:
            path: A file that ``save`` wrote.
            model: A model with the same parameter names and shapes.
            optimizer: What will train it.
            config: Settings from now on; the saved ones if None.
            attach: As in the constructor.

        Raises:
            FileNotFoundError: No such file.
            ValueError: Not an rwalk state, or it does not fit the model.
        """
        saved = load_state(path)
        rwalk = cls(model, optimizer, config or RWalkConfig.from_dict(saved["config"]), attach=False)
        rwalk.load_state_dict(saved)
        if attach:
            rwalk.attach()
        return rwalk

    def _export(self, *, kept: bool = True) -> dict[str, Any]:
        if self._walk.is_stepping:
            raise RWalkError("state_dict() called between before_step() and after_step(): let the optimizer step first")
        self._settle()
        counters = {name: getattr(self, name) for name in state.COUNTERS}
        return state.export(self._tracker, counters, kept=kept)

    @torch.no_grad()
    def _settle(self) -> None:
        self._walk.settle()


def _check_config(config: object) -> None:
    if not isinstance(config, RWalkConfig):
        raise TypeError(f"config={config!r}: expected an RWalkConfig")
