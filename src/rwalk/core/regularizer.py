"""RWalk: the object that a training loop holds, and the method from top to bottom."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from rwalk.core import files, proximal
from rwalk.core.checking import COUNTERS
from rwalk.core.config import Combine, RWalkConfig
from rwalk.core.consolidate import check_finite, estimate_fisher, fisher_of_task, freeze, merge_fisher, take_fisher
from rwalk.core.exporting import checked, compacted, export, made
from rwalk.core.hooks import OptimizerHooks, base_optimizer, release, watch_loading
from rwalk.core.native import backend_of
from rwalk.core.readings import Readings
from rwalk.core.restoring import restore
from rwalk.core.sharding import local, writes_files
from rwalk.core.state import Cohort, Tracked, keepings_of, unstage
from rwalk.core.steps import Pending, Steps
from rwalk.core.strength import StrengthCheck
from rwalk.core.tracking import Tracker
from rwalk.errors import RWalkError
from rwalk.module_state import quietly

if TYPE_CHECKING:
    from rwalk.core.likelihood import Kind as Likelihood
    from rwalk.core.likelihood import Labels
    from rwalk.core.samples import LogProb, Protection

__all__ = ["RWalk"]

log = logging.getLogger(__name__)


class RWalk(Readings):
    r"""Riemannian Walk on a model and the optimizer that trains it.

    A step counts when the next gradient shows where it led. Before every optimizer step, one pass over memory brings
    the *last* one into the state, with the weights where they are now: the Fisher (Eq. 6) and the loss change (Eq. 7).
    It keeps this step's gradient :math:`g` and weights, and adds the penalty's gradient to ``.grad`` in closed form.
    So whatever moves weights from one gradient to the next is part of the walk (weight decay, a clamp, an outer
    optimizer), and a step that was skipped, raised or had no finite gradient leaves no trace. No forward or backward
    pass is added and the model's mode is never touched.

    Weights that are *replaced* are no walk: ``load_state_dict`` on the model drops the last step and the open window;
    if you replace weights otherwise, call ``settle`` before or ``drop_window`` after.

    Args:
        model: The model. State is keyed by its parameter names.
        optimizer: What moves the parameters. Wrapped optimizers (Accelerate) are unwrapped.
        config: Settings; ``RWalkConfig()`` if None.
        attach: Follow the optimizer's own steps through its hooks. With False, call ``before_step`` when gradients are
            complete (unscaled, accumulated, synchronised) and ``after_step`` when the optimizer has stepped.

    Raises:
        TypeError: ``model`` is not a module or ``optimizer`` not an optimizer.
        RWalkError: The optimizer holds none of the model's parameters, maximises, calls its closure more than
            once a step (LBFGS), or shares parameters with one that an RWalk is attached to already.

    Attributes:
        config: The settings. Another config may be assigned between steps (a schedule of ``ewc_lambda``, say) if its
            state is laid out alike.

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
        self._tracker = Tracker(model, self.optimizer, config)
        self._tracker.tell_idle_patterns()
        self._steps = Steps(self._tracker)
        self._held = False
        self._strength, self._rates = StrengthCheck(), list[Any]()
        self._held_share, self._has_protected = (-1, 0.0), False
        self._is_half_ended = False
        self._hooks: OptimizerHooks | None = None
        self._loading: list[RemovableHandle] = []
        self._watch()
        if attach:
            self.attach()

    # --- one step -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def before_step(self, *, grad_scale: Tensor | float | None = None, held: bool = False) -> None:
        """Bring the last step into the state, keep this one, add the penalty's gradient (nothing in proximal mode).

        Call it where ``.grad`` holds the complete gradient of the plain loss. Only ``.grad`` is changed.

        Args:
            grad_scale: The factor by which gradients are still scaled (a fused optimizer under GradScaler). The
                penalty's gradient is scaled alike.
            held: The step began where ``hold_weights`` was called, and the gradient was taken elsewhere since.

        Raises:
            RWalkError: Called twice without ``after_step`` between, or with ``nonfinite="raise"`` a gradient that is
                not finite.
        """
        steps, tracker, config = self._steps, self._tracker, self._tracker.config
        if steps.begun or self._is_half_ended:
            self._refuse_half_ended()
            raise RWalkError("before_step() called twice: after_step() must follow each optimizer step")
        held, self._held = held and self._held, False
        if tracker.has_changed():
            self._match()
        entries, gradients, ready = tracker.with_gradient()
        if not entries:  # the optimizer moves nothing: no step
            steps.settle()
            steps.begun = True
            return
        if not ready:
            steps.admit(entries, held=held)

        penalised = bool(steps.tasks and config.ewc_lambda) and config.penalty == "gradient"
        if penalised:
            self._check_strength()
        how = {"weights": not held, "scale": grad_scale, "penalised": penalised}
        if tracker.is_elsewhere and self._step_ahead(entries, gradients, **how):
            return

        # The last step led to where the weights are now: what it brings in (Eq. 6 and 7), in the same pass if it can.
        due = {} if held else steps.take_up()
        cohorts = tracker.cohorts(entries)
        if due.keys() != set(cohorts):  # a layer came or went
            steps.bring_in(due)
            due = {}
        if not steps.window_is_open:
            steps.open_window()

        # This step is pending from now on: its gradient and weights are kept, and the penalty's gradient joins (Eq. 8).
        pending, voids = Pending(entries), []
        keepings = keepings_of(cohorts, entries, gradients, **how)
        for cohort, keeping in zip(cohorts, keepings, strict=True):
            try:
                voids.append(backend_of(cohort.bucket, config.backend).step(cohort, config, due.get(cohort), keeping))
            except RWalkError:  # before it has touched anything
                steps.bring_in(due)
                raise
            due.pop(cohort, None)
        unstage(keepings)
        pending.doubt(voids, cohorts)
        steps.begin(pending)

        # Without a finite gradient it will not count.
        scaled = grad_scale is not None or getattr(self.optimizer, "found_inf", None) is not None
        raises = config.nonfinite == "raise" and not scaled  # a GradScaler skips such steps by itself
        if pending.is_void or (raises and not pending.counts()):
            self._refuse_gradient(entries, gradients, raises=raises)
        elif tracker.is_elsewhere:
            steps.let_device_count(cohorts, penalised=penalised)

    @torch.no_grad()
    def after_step(self, *, skipped: bool | Tensor = False) -> None:
        """The optimizer has stepped: it counts when the next gradient comes, or when the state is asked for.

        Args:
            skipped: The optimizer did not step after all (GradScaler found inf), or raised: nothing of it is kept. A
                tensor on another device is not waited for.

        Raises:
            RWalkError: No ``before_step`` came first.
        """
        steps = self._steps
        if not steps.begun:
            raise RWalkError("after_step() without before_step(): call before_step() when the gradients are complete")
        steps.begun = False
        if steps.pending is None:
            return
        if isinstance(skipped, Tensor) and steps.ahead.hears(skipped):
            steps.ahead.doubt(skipped)
        elif skipped is not False:
            steps.ahead.end(steps)
            steps.pending.doubt([skipped])
        if steps.pending.is_void:
            steps.drop("was skipped by the optimizer, or raised")
        elif steps.tasks and self._tracker.config.penalty == "proximal" and self._tracker.config.ewc_lambda:
            self._pull(steps.pending.entries, skipped)

    def abandon_step(self) -> None:
        """Leave out the step that was begun, if there is one: the optimizer raised, or was interrupted.

        An attached RWalk does so by itself when the next step begins.
        """
        if self._steps.begun:
            self.after_step(skipped=True)

    @quietly
    def hold_weights(self) -> None:
        """Note that a step begins where the weights are now, though its gradient will be taken elsewhere.

        For optimizers that move the weights before their closure computes the gradient (sharpness-aware ones); an
        attached RWalk does it by itself. ``before_step(held=True)`` follows.

        Raises:
            RWalkError: Called between ``before_step`` and ``after_step``.
        """
        self._refuse_within_step("hold_weights")
        self.settle()
        if self._tracker.has_changed():
            self._match()
        self._steps.make_room()
        if not self._steps.window_is_open:
            self._steps.open_window()
        self._held = True
        for cohort in self._tracker.resident():
            cohort.gather("before", cohort.weights())
        for entry in self._tracker.moved:
            entry.held = local(entry.parameter).detach().clone() if entry.placement is None else None

    # --- the end of a task --------------------------------------------------------------------------------------------

    @quietly
    def consolidate(self, batches: Iterable[Any] | None = None, forward: Callable[[Any], Tensor] | None = None) -> None:
        r"""End a task: average and scale the scores, freeze penalties and anchors.

        The unfinished window is scored or dropped first (``config.unfinished``). The Fisher goes on from where it is.
        A parameter that had no step in this task keeps its score. If no optimizer step was seen since the last call, a
        warning is logged and nothing changes.

        Args:
            batches: The task's data, batches ``(x, ...)`` or x; needed with ``fisher_source="loader"`` or
                ``"samples"`` and refused without.
            forward: Maps a batch to scores of classes; the model on the batch's first entry if None.

        An interruption while importances are made leaves half of them: until a state is loaded, steps, another task's
        end, and saving are refused then.

        Raises:
            RWalkError: Called between ``before_step`` and ``after_step``, ``batches`` missing or not wanted, the model
                has other parameters than the optimizer moves, or Fisher or score not finite (then the penalty stays as
                it was).
            TypeError: ``batches`` is a single batch.
        """
        steps, tracker, config = self._steps, self._tracker, self._tracker.config
        self._refuse_within_step("consolidate")
        if (batches is not None) != (config.fisher_source != "step"):
            takes = "needs the task's data: consolidate(batches)" if batches is None else "takes no data"
            raise RWalkError(f"fisher_source={config.fisher_source!r} {takes}")
        tracker.check()
        steps.settle()
        if steps.task_steps == 0 or not tracker.buckets:
            log.warning(
                "consolidate(): no optimizer step with gradients yet, or none since the last one: nothing changes"
            )
            return
        steps.make_room()
        residents = tracker.resident()
        # Whose Fisher is asked for: what rests out of the optimizer keeps its own, as what is frozen does.
        asked = [entry for entry in _entries(residents) if entry.group is not None or entry.last_task == steps.tasks]
        found = None
        if batches is not None and config.fisher_source == "samples":
            found = fisher_of_task(self.model, asked, batches, forward, config, steps.tasks)
        elif batches is not None:
            parameters = {entry.name: entry.parameter for entry in asked}
            found = estimate_fisher(self.model, parameters, batches, forward)
        check_finite(tracker.buckets, residents, config)
        if found is not None:
            if config.fisher_source == "samples":
                take_fisher(residents, found)
            else:
                merge_fisher(residents, found, config)
        steps.flush_window(residents)
        if self._has_protected and config.combine == "replace":
            self._has_protected = False
            log.warning(
                "consolidate() replaces the importances that protect() has found; with "
                "RWalkConfig(combine='sum') a task's join those that are there"
            )
        self._freeze(residents, config, self._resting(residents))

    @quietly
    def protect(
        self,
        batches: Iterable[Any],
        *,
        labels: Labels = "sampled",
        likelihood: Likelihood | None = None,
        class_dim: int | None = None,
        log_prob: LogProb | None = None,
        max_samples: int | None = None,
        combine: Combine | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> Protection:
        r"""Protect the model as it stands, by its Fisher on a few hundred samples; nobody need have watched it learn.

        It ends a task as ``consolidate`` does, but with the Fisher

        .. math:: \hat F = \frac1N \sum_i \big(\nabla \log p(y_i \mid x_i)\big)^2

        of single samples in place of the running one. Scores of steps that were taken join it, unless ``terms`` is
        ``"fisher"``. Works before any step, between tasks, and at their end. The model is in evaluation mode meanwhile;
        its mode, buffers and ``.grad`` stay as they are.

        Args:
            batches: Tensors x, pairs (x, y), or dictionaries of the model's arguments (``labels`` among them or not).
            labels: ``"sampled"``: drawn from the model, the Fisher proper; needs no labels. ``"data"``: the batches'
                own, the empirical Fisher. ``"argmax"``: the most likely ones.
            likelihood: What the outputs are: ``"categorical"`` (scores of classes, also at each position of a
                sequence), ``"bernoulli"`` (one logit a label), ``"gaussian"`` (means, variance 1). None tells it from
                outputs, labels and the model's own loss, and refuses what cannot be told.
            class_dim: Which dimension of the outputs goes over classes, where that cannot be told.
            log_prob: Maps (model, batch, generator) to one log-probability a sample, shape (B,), for anything else.
            max_samples: Stop after so many.
            combine: As in ``RWalkConfig``; what was protected before is kept unless it is ``"replace"``. None: as this
                RWalk's own config has it, but ``"sum"`` where that is ``"replace"``.
            seed: Of the labels that are drawn.
            progress: Show a progress bar (tqdm's).

        Returns:
            How many samples, as what, and how their gradients were found.

        Raises:
            RWalkError: What the outputs are cannot be told, there are no samples, a gradient is not finite, parameters
                are sharded over processes, or it is called between ``before_step`` and ``after_step``. Nothing has
                changed then.
            TypeError: ``batches`` is a single batch.
            ValueError: ``labels``, ``combine`` or ``max_samples`` is out of range.
            MissingExtraError: A progress bar is wanted and tqdm is not installed.
        """
        from rwalk.core.samples import protection_of  # which a walk does not need

        steps, tracker, own = self._steps, self._tracker, self.config.combine
        config = self.config.replace(combine=combine or ("sum" if own == "replace" else own))
        self._refuse_within_step("protect")
        tracker.check()
        estimate, done = protection_of(
            self.model, tracker.moved, batches, labels=labels, likelihood=likelihood, class_dim=class_dim,
            log_prob=log_prob, max_samples=max_samples, seed=seed, progress=progress,
        )  # fmt: skip
        steps.settle()
        steps.make_room(tracker.moved)
        residents = tracker.resident()
        check_finite(tracker.buckets, residents, config)
        steps.flush_window(residents)
        take_fisher(residents, estimate)
        fresh = steps.task_steps if config.combine in ("sum", "mean") else steps.steps  # else a score would join twice
        terms = "both" if fresh > 0 and config.terms != "fisher" else "fisher"
        asked = {entry for entry in tracker.moved if entry.parameter.requires_grad}
        self._freeze(
            residents, config.replace(terms=terms, anchor_at="last"), self._resting(residents).difference(asked)
        )
        for entry in asked:
            entry.last_task = steps.tasks - 1
        self._has_protected = True
        return done

    @quietly
    def end_window(self) -> None:
        """Bring the last step into the state, and end the unfinished window here, scored or dropped as at a task's end.

        Call it before you put other weights in place of those that the steps have led to, if these count: the walk up
        to here is kept, and what follows is none.
        """
        self.settle()
        self._make_room()
        self._steps.flush_window(self._tracker.resident())
        self._steps.drop_window()

    @quietly
    def drop_window(self) -> None:
        """Forget what the unfinished window has gathered, and the last step if it is not settled.

        The next step opens a new window. Call it after weights were replaced other than by ``load_state_dict``.
        """
        self._steps.drop_window()

    # --- its settings, and whom it follows ----------------------------------------------------------------------------

    @property
    def config(self) -> RWalkConfig:
        """The settings."""
        return self._tracker.config

    @config.setter
    def config(self, config: RWalkConfig) -> None:
        _check_config(config)
        self.config.check_successor(config)
        proximal.check_rates(self.optimizer, config)
        if config != self.config:
            self.settle()
            self._tracker.config = config
            self._tracker.forget_cohorts()
            self._check_strength(anew=True)

    @property
    def attached(self) -> bool:
        """Whether the optimizer's own steps are followed."""
        return self._hooks is not None

    def attach(self, optimizer: Optimizer | None = None, model: nn.Module | None = None) -> None:
        """Follow the optimizer through its step hooks.

        Args:
            optimizer: Another optimizer, to follow from now on; the same one if None.
            model: Another model with the same parameter names, to protect from now on; the same one if None.

        Raises:
            RWalkError: Already attached, another RWalk is attached to this optimizer or one that shares parameters with
                it, or the model lacks a parameter whose state is kept.
        """
        if self._hooks is not None:
            raise RWalkError("this RWalk is attached already; detach() it first")
        before = self.model, self.optimizer
        if optimizer is not None or model is not None:
            self.follow(model, optimizer)
        self.abandon_step()  # a copy's, of whose end no hook will tell
        try:
            self._hooks = OptimizerHooks(self.optimizer, self)
        except RWalkError:
            self.follow(*before)
            raise
        if not self._loading:  # a copy's
            self._watch()

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
        chosen = self.model if model is None else model
        if base is not self.optimizer or chosen is not self.model:
            self.settle()
            self._tracker.follow(chosen, base)
            self.model, self.optimizer = chosen, base
            self._watch()

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
        self.settle()

    def protected(self) -> set[int]:
        """The parameters that the optimizer moves and this RWalk protects, by identity."""
        if self._tracker.has_changed():
            self._match()
        return {id(entry.parameter) for entry in self._tracker.moved}

    @staticmethod
    def release(optimizer: Optimizer) -> bool:
        """Detach whichever RWalk follows this optimizer, when it is out of reach (a notebook's lost variable, say).

        Returns:
            Whether there was one.
        """
        return release(optimizer)

    # --- its state ----------------------------------------------------------------------------------------------------

    @quietly
    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly where this stands: counters, config, and tensors by parameter name.

        Tensors are whole: where parameters are sharded over processes, all of them must call this, and each gets them
        in its host's memory.

        Raises:
            RWalkError: Called between ``before_step`` and ``after_step``, or the model no longer has a parameter whose
                state is kept.
        """
        return made(self._export())

    @quietly
    def load_state_dict(self, state_dict: Mapping[str, Any], *, strict: bool = True) -> None:
        """Go on from a ``state_dict``. This object's own config stays in force.

        Parameters of the model that the state does not hold start anew.

        Args:
            state_dict: From ``state_dict``, of any version, under any device, dtype and number of processes.
            strict: Refuse a state with parameters that the model does not have, or has in another shape. With False
                the first are left out, and of the others the block that both shapes contain is taken (a head that grew
                or lost rows); one line of the log names them.

        Raises:
            StateError: The state is not rwalk's, damaged, or does not fit the model. Nothing has changed then.
        """
        counters = restore(self._tracker, state_dict, strict=strict)
        self._end_abandoned()
        self._steps.start_over(counters)
        self._watch()
        self._held = self._is_half_ended = False
        self._has_protected = state_dict.get("protected", False)
        self._strength, self._rates, self._held_share = StrengthCheck(), [], (-1, 0.0)

    @quietly
    def save(self, path: str | Path, *, compact: bool = False) -> None:
        """Write the state to a file, atomically: it is complete and on the disk, or the old one is as it was.

        The file is safetensors with a checksum of every byte (``docs/state-file.md``), written tensor by tensor. Its
        permissions are what the umask leaves; a link stays, and the file it points to is replaced. Of several processes
        only the first (rank 0) writes, since all have the same state. Where parameters are sharded over them, all must
        call this.

        Args:
            path: Where to.
            compact: For shipping: importances and anchors alone, rounded to 3 bytes a parameter. Loaded, it is the
                state at a task's beginning, with a Fisher and scores that start anew.

        Raises:
            OSError: It cannot be written.
            RWalkError: As ``state_dict``; or the state is not finite, or with ``compact`` no task has ended.
        """
        state = checked(self._export())
        if compact:
            state = compacted(state)
        if writes_files():
            files.save_state(state, path)
        else:  # whose shards are put together too
            made(state, kept=False)

    @classmethod
    def load(
        cls,
        path: str | Path,
        model: nn.Module,
        optimizer: Optimizer,
        config: RWalkConfig | None = None,
        *,
        attach: bool = True,
        strict: bool = True,
    ) -> RWalk:
        """Read a saved state into a new RWalk.

        Tensors are read one by one, and each is checked against its checksum. Load the model's weights before: where
        ``load_state_dict`` replaces them later, the open window is dropped.

        Args:
            path: A file that ``save`` wrote.
            model: A model with the same parameter names and shapes.
            optimizer: What will train it.
            config: Settings from now on; the saved ones if None.
            attach: As in the constructor.
            strict: As in ``load_state_dict``.

        Raises:
            FileNotFoundError: No such file.
            OSError: It cannot be read.
            StateError: Not an rwalk state, damaged, or it does not fit the model.
        """
        with files.opened(path) as saved:
            config = config if config is not None else RWalkConfig.from_dict(saved["config"])
            rwalk = cls(model, optimizer, config, attach=False)
            try:
                rwalk.load_state_dict(saved, strict=strict)
            except BaseException:
                rwalk._stop_watching()
                raise
        if attach:
            rwalk.attach()
        return rwalk

    def __getstate__(self) -> dict[str, Any]:
        """A copy is not attached: torch copies optimizers without their hooks."""
        self._end_abandoned()
        self.settle()
        return {**vars(self), "_hooks": None, "_loading": [], "_held": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Watch the copy's model."""
        vars(self).update(state)
        if "_modules" in vars(self.model):  # else it holds this object, and is still being copied
            self._watch()

    def _export(self) -> dict[str, Any]:
        self._refuse_within_step("state_dict")
        self._tracker.check()
        self.settle()
        self._make_room()
        state = export(self._tracker, {name: getattr(self._steps, name) for name in COUNTERS})
        return {**state, "protected": True} if self._has_protected else state

    # --- its parts ----------------------------------------------------------------------------------------------------

    def _resting(self, residents: Iterable[Cohort]) -> set[Tracked]:
        """What had no step in this task."""
        return {entry for entry in _entries(residents) if entry.last_task != self._steps.tasks}

    def _freeze(self, residents: list[Cohort], config: RWalkConfig, resting: Collection[Tracked]) -> None:
        """The task has ended: from Fisher and scores as they are, importances and anchors."""
        try:
            freeze(self._tracker.buckets, residents, config, self._steps.tasks, resting)
        except RWalkError:  # nothing has changed
            raise
        except BaseException:  # Control-C, or no memory left
            self._is_half_ended = True
            raise
        for entry in self._tracker.entries:
            entry.grew = False
        self._steps.end_task()
        self._check_strength(anew=True)

    def _step_ahead(self, entries: list[Tracked], gradients: list[Tensor], **how: Any) -> bool:
        """The same as in ``before_step``, decided by the device; whether it can."""
        steps = self._steps
        if steps.ahead.leads and how["weights"]:
            cohorts = self._tracker.cohorts(entries)
            keepings = keepings_of(cohorts, entries, gradients, **how)
            if steps.ahead.can_go_on(cohorts, self.config, keepings):
                steps.ahead.step(self.config, keepings)
                steps.begin(Pending(entries))
                unstage(keepings)
                return True
        steps.refuse_capture()
        steps.ahead.end(steps)
        return False

    def _pull(self, entries: list[Tracked], skipped: bool | Tensor) -> None:
        """Take the penalty's proximal step, with each group's learning rate."""
        rates, void = [group["lr"] for group in self.optimizer.param_groups], self._steps.void(skipped)
        for cohort in self._tracker.cohorts(entries):
            backend = backend_of(cohort.bucket, self.config.backend)
            here = None if void is None else void.to(cohort.bucket.device)
            lengths = [rates[entry.group or 0] for entry in cohort.entries]
            if self.config.proximal_rate == "optimizer":
                lengths, apart = proximal.step_lengths(self.optimizer, cohort, lengths)
                if apart:
                    proximal.pull(cohort, self.config, lengths, here)
                    continue
            backend.pull(cohort, self.config, lengths, here)

    def _refuse_gradient(self, entries: list[Tracked], gradients: list[Tensor], *, raises: bool) -> None:
        bad = [entry.name for entry, found in zip(entries, gradients, strict=True) if not bool(found.isfinite().all())]
        what = f"the gradient of {bad[0]!r} is not finite" if bad else "a gradient's square is not finite"
        if raises:
            self._steps.drop(None)
            self._steps.begun = False
            raise RWalkError(
                f"{what}: this step leaves no trace in RWalk's state. Clear the gradients before the next one; "
                "nonfinite='skip' leaves such steps out without stopping"
            )
        self._steps.drop(f"does not count, because {what}")

    def _match(self) -> None:
        """The optimizer holds other parameters now, and the model may have other modules."""
        self.settle()
        self._tracker.match()
        self._watch()

    def _watch(self) -> None:
        self._stop_watching()
        followed = {id(entry.parameter) for entry in self._tracker.entries}
        self._loading = watch_loading(self.model, followed, self._weights_replaced)

    def _stop_watching(self) -> None:
        for handle in self._loading:
            handle.remove()

    def _end_abandoned(self) -> None:
        """The optimizer raised in the step that was begun."""
        if self._hooks is not None and not self._hooks.is_stepping():
            self._hooks.forget()
            self.abandon_step()

    def _refuse_half_ended(self) -> None:
        if self._is_half_ended:
            raise RWalkError(
                "the end of a task was interrupted while importances were made, and half of them are old ones: go on "
                "from the last state that was saved, with load_state_dict() or RWalk.load()"
            )

    def _refuse_within_step(self, called: str) -> None:
        self._refuse_half_ended()
        self._end_abandoned()
        if self._steps.begun:
            raise RWalkError(
                f"{called}() called between before_step() and after_step(): let the optimizer step first, or call "
                "after_step(skipped=True) if it will not"
            )

    def _weights_replaced(self) -> None:
        """``load_state_dict`` has replaced weights: that is no walk."""
        self._held = False
        self._steps.drop_for_other_weights()

    def _check_strength(self, *, anew: bool = False) -> None:
        """Look whether the penalty is too strong, where a learning rate, the settings or importances have changed."""
        lrs = [group.get("lr") for group in self.optimizer.param_groups]
        rates = [(id(lr), lr._version) if isinstance(lr, Tensor) else lr for lr in lrs]  # no device is waited for
        if self._steps.tasks and (anew or rates != self._rates):
            self._rates = rates
            self._strength(self._tracker, self.optimizer, anew=anew)


def _check_config(config: object) -> None:
    if not isinstance(config, RWalkConfig):
        raise TypeError(f"config={config!r}: expected an RWalkConfig")


def _entries(cohorts: Iterable[Cohort]) -> list[Tracked]:
    return [entry for cohort in cohorts for entry in cohort.entries]
