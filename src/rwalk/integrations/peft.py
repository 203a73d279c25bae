"""LoRA protecting its base: the adapter moves, and what the frozen base knows is held."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rwalk.core.hooks import OptimizerHooks, base_optimizer
from rwalk.core.low_rank import factor
from rwalk.core.samples import LogProb, Protection, protection_of
from rwalk.core.state import Tracked
from rwalk.errors import RWalkError
from rwalk.integrations.lora_checks import adapted_by, is_peft, refuse_other_base
from rwalk.integrations.lora_files import read, write
from rwalk.integrations.lora_penalty import GradientAdder, penalty_of
from rwalk.integrations.lora_state import Kept

if TYPE_CHECKING:
    from rwalk.core.likelihood import Kind as Likelihood
    from rwalk.core.likelihood import Labels

__all__ = ["BaseProtection", "is_peft"]

log = logging.getLogger(__name__)

Form = Literal["factored", "whole"]
Combine = Literal["sum", "replace"]
KIND = "base protection"


class BaseProtection:
    r"""Holds what the frozen base of a LoRA model knows, while its adapters learn something else.

    Adapters change each weight that they adapt by :math:`\Delta W = s\,B A`. The penalty weighs this change by the
    *base's* Fisher on samples of what is to be kept, as ``protect`` finds it,

    .. math:: \lambda \sum_W \sum_{ij} \Omega_{ij} \, (\Delta W)_{ij}^2,

    and its gradient joins ``.grad`` of A and B before each optimizer step, in closed form. Weights that no adapter
    changes need nothing. An ``RWalk`` may follow the same optimizer, for what the *adapters* learn from task to task;
    it comes first.

    ``merge_and_unload`` moves the base. The protection goes on from there with the next adapter: ``follow`` takes over
    what was merged as factors, so that the change is counted from where ``protect`` found the base.

    Args:
        model: A model with LoRA adapters, wrapped or not.
        optimizer: What moves the adapters. Wrapped optimizers (Accelerate) are unwrapped.
        ewc_lambda: Strength :math:`\lambda \ge 0`. :math:`\Omega` has mean 1 over all adapted weights, so that
            :math:`\lambda` is that of a plain :math:`\lambda \lVert \Delta W \rVert^2`.
        importance: ``"factored"``: :math:`\Omega` as a row and a column a weight, m + n floats, with the mean of each
            row and column kept; a step costs k²(m + n) multiplications a weight. ``"whole"``: m·n floats, and a step
            costs 6kmn.
        attach: Add the gradient in the optimizer's own steps. With False, call ``before_step`` when gradients are
            complete.

    Raises:
        TypeError: ``model`` is not a module or ``optimizer`` not an optimizer.
        ValueError: ``ewc_lambda`` or ``importance`` is out of range.
        MissingExtraError: peft is not installed.
        RWalkError: The model has no LoRA adapter, or one whose change is not s·B·A (DoRA, quantised layers); the base
            is trained itself; or the optimizer is LBFGS or has a ``BaseProtection`` already.

    Attributes:
        ewc_lambda: The strength; another may be assigned between steps.

    Example:
        >>> from peft import LoraConfig, get_peft_model
        >>> base = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))  # trained by whomever
        >>> model = get_peft_model(base, LoraConfig(r=2, target_modules=["0", "2"]))
        >>> optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        >>> protection = BaseProtection(model, optimizer, ewc_lambda=1.0)
        >>> print(protection.protect([torch.randn(16, 4)]))  # inputs of what is to be kept
        16 samples, categorical, labels 'sampled', gradients by closed form
        >>> sorted(protection.importances())
        ['0.weight', '2.weight']
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        ewc_lambda: float = 1.0,
        *,
        importance: Form = "factored",
        attach: bool = True,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model={model!r}: expected a torch.nn.Module")
        if importance not in get_args(Form):
            raise ValueError(f"importance={importance!r}: expected one of {', '.join(map(repr, get_args(Form)))}")
        self.model, self.optimizer, self._form = model, base_optimizer(optimizer), importance
        self.ewc_lambda = ewc_lambda
        self._kept: dict[str, Kept] = {}
        self._adapted = adapted_by(model, self.optimizer)
        self._hooks: OptimizerHooks | None = None
        self._adder = GradientAdder()
        if attach:
            self.attach()

    @property
    def ewc_lambda(self) -> float:
        """The strength."""
        return self._lambda

    @ewc_lambda.setter
    def ewc_lambda(self, value: float) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"ewc_lambda={value!r}: expected a finite number ≥ 0")
        self._lambda = float(value)

    @property
    def attached(self) -> bool:
        """Whether the gradient joins in the optimizer's own steps."""
        return self._hooks is not None

    @property
    def tasks(self) -> int:
        """How many calls of ``protect`` count."""
        return max((len(kept.terms) for kept in self._kept.values()), default=0)

    # --- what is protected --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def protect(
        self,
        batches: Iterable[Any],
        *,
        labels: Labels = "sampled",
        likelihood: Likelihood | None = None,
        class_dim: int | None = None,
        log_prob: LogProb | None = None,
        max_samples: int | None = None,
        combine: Combine = "sum",
        seed: int = 0,
        progress: bool = False,
    ) -> Protection:
        """Protect what the base says of these samples, as it stands: with what was merged into it, without adapters.

        Adapters are off and the base takes gradients meanwhile; afterwards all flags are as they were. It needs room
        for one float32 copy of all adapted weights.

        Args:
            batches: As in ``RWalk.protect``, and so are all arguments but ``combine``.
            labels: Whose labels.
            likelihood: What the outputs are.
            class_dim: Which dimension of the outputs goes over classes.
            log_prob: Maps (model, batch, generator) to one log-probability a sample.
            max_samples: Stop after so many.
            combine: ``"sum"``: what was protected before stays so. ``"replace"``: it is let go.
            seed: Of the labels that are drawn.
            progress: Show a progress bar.

        Returns:
            How many samples, as what, and how their gradients were found.

        Raises:
            RWalkError: As ``RWalk.protect``; adapters are merged for a while (``unmerge_adapter`` first), or the base
                was changed by something else than adapters that were merged. Nothing has changed then.
            ValueError: An option is out of range.
        """
        from rwalk.integrations.lora_layers import base_alone

        if combine not in get_args(Combine):
            raise ValueError(f"combine={combine!r}: expected one of {', '.join(map(repr, get_args(Combine)))}")
        self._refuse_merged("protect()")
        self._check_base()
        entries = {id(each.weight): Tracked(name, each.weight) for name, each in self._adapted.items()}
        with base_alone(self.model, [entry.parameter for entry in entries.values()]):
            found, done = protection_of(
                self.model, entries.values(), batches, labels=labels, likelihood=likelihood, class_dim=class_dim,
                log_prob=log_prob, max_samples=max_samples, seed=seed, progress=progress,
            )  # fmt: skip
        fisher = {name: found[entries[id(each.weight)].name] for name, each in self._adapted.items()}
        mean = sum(float(value.sum()) for value in fisher.values()) / sum(value.numel() for value in fisher.values())
        if mean <= 0:
            raise RWalkError("the Fisher of every adapted weight is zero on these samples: nothing was protected")
        if combine == "replace":
            self._kept.clear()
        for name, each in self._adapted.items():
            importance = each.matrix(fisher[name] / mean)
            kept = self._kept.setdefault(name, Kept.of(each.matrix(each.weight)))
            kept.joins(factor(importance) if self._form == "factored" else importance.contiguous())
        self._adder.forget()
        self._tell_others()
        return done

    def importances(self) -> dict[str, Tensor]:
        """What each adapted weight is worth, by the base's name and in its shape; factored ones are multiplied out."""
        found = {}
        for name, kept in self._kept.items():
            total = torch.stack([term.whole() for term in kept.terms]).sum(0)
            each = self._adapted.get(name)
            found[name] = total if each is None else each.unfolded(total)
        return found

    def penalty(self) -> Tensor:
        r""":math:`\lambda \sum \Omega_{ij} (\Delta W)_{ij}^2` at the present adapters, for logging.

        Returns:
            A scalar tensor; 0 before ``protect``. Differentiable, but do not add it to the loss where this is attached.
        """
        return self.ewc_lambda * penalty_of(self._adapted, self._kept)

    # --- a step -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def before_step(self, *, grad_scale: Tensor | float | None = None, held: bool = False) -> None:
        """Add the penalty's gradient to ``.grad`` of the active adapters. Call it where gradients are complete.

        Args:
            grad_scale: The factor by which gradients are still scaled (a fused optimizer under GradScaler).
            held: Not used; a walk's.

        Raises:
            RWalkError: An RWalk was attached to the optimizer after this: it would take the penalty's gradient for the
                loss's.
        """
        if self._hooks is not None and self._hooks.is_first():
            raise RWalkError(
                "an RWalk was attached to this optimizer after the BaseProtection, whose gradient it would take "
                "for the loss's: detach() and attach() the BaseProtection, so that it comes second"
            )
        if not self.ewc_lambda or not self._kept:
            return
        strength = self.ewc_lambda if grad_scale is None else grad_scale * self.ewc_lambda
        self._adder(self._adapted, self._kept, strength)

    def after_step(self, *, skipped: bool | Tensor = False) -> None:
        """Nothing: a step leaves no state."""

    def hold_weights(self) -> None:
        """Nothing: a step leaves no state."""

    abandon_step = hold_weights

    def protected(self) -> set[int]:
        """No parameter: an RWalk may follow the adapters as well."""
        return set()

    # --- whom it follows ----------------------------------------------------------------------------------------------

    def attach(self, optimizer: Optimizer | None = None, model: nn.Module | None = None) -> None:
        """Add the gradient in the optimizer's own steps from now on.

        Args:
            optimizer: Another one; the same if None.
            model: Another one, as in ``follow``; the same if None.

        Raises:
            RWalkError: Attached already, or as in ``follow``.
        """
        if self._hooks is not None:
            raise RWalkError("this BaseProtection is attached already; detach() it first")
        if optimizer is not None or model is not None:
            self.follow(model, optimizer)
        holder = _ATTACHED.get(self.optimizer)
        if holder is not None and holder() is not None:
            raise RWalkError("another BaseProtection is attached to this optimizer: detach() it, or protect() with it")
        self._hooks = OptimizerHooks(self.optimizer, self, alone=False)
        _ATTACHED[self.optimizer] = ref(self)

    def detach(self) -> None:
        """Let go of the optimizer; what is protected stays so.

        Raises:
            RWalkError: Not attached.
        """
        if self._hooks is None:
            raise RWalkError("this BaseProtection is not attached, so there is nothing to detach")
        self._hooks.remove()
        self._hooks = None
        _ATTACHED.pop(self.optimizer, None)

    @torch.no_grad()
    def follow(self, model: nn.Module | None = None, optimizer: Optimizer | None = None) -> None:
        """Go on with another adapter on the same base, or with another optimizer, without attaching to it.

        What of the present adapters was merged by now (``merge_and_unload``) counts from here on as part of the change.

        Args:
            model: The model with its adapter now; the same one if None (an adapter was added to it).
            optimizer: Another optimizer; the same one if None.

        Raises:
            RWalkError: Attached to the present optimizer; the base is not the one that was protected, moved by what was
                merged; or as when it is built. Nothing has changed then.
        """
        if self._hooks is not None:
            raise RWalkError("this BaseProtection is attached to its present optimizer; detach() it first")
        chosen = self.model if model is None else model
        base = self.optimizer if optimizer is None else base_optimizer(optimizer)
        adapted = adapted_by(chosen, base)
        kept = {name: Kept.restored(each.export()) for name, each in self._kept.items()}
        for name, before in self._adapted.items():
            if name in kept and (name not in adapted or adapted[name].layer is not before.layer):
                for part in before.parts(before.layer.merged_adapters):
                    kept[name].drifts(*part.factors())
        for name, each in adapted.items():
            refuse_other_base(name, each, kept.get(name))
        self.model, self.optimizer, self._adapted, self._kept = chosen, base, adapted, kept
        self._adder.forget()
        self._tell_others()

    # --- its state ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that is kept: strength, form, and tensors by the base's names. The adapters' weights are not in it."""
        parameters = {name: kept.export() for name, kept in self._kept.items()}
        return {
            "kind": KIND,
            "schema": 1,
            "ewc_lambda": self.ewc_lambda,
            "importance": self._form,
            "parameters": parameters,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict``.

        Raises:
            ValueError: It is none, or of another form of importance.
            RWalkError: The base is not the one that was protected. Nothing has changed in either case.
        """
        if state_dict.get("kind") != KIND or state_dict.get("schema") != 1:
            raise ValueError("not the state of a BaseProtection (schema 1)")
        if state_dict["importance"] != self._form:
            raise ValueError(f"the state is {state_dict['importance']!r} and this BaseProtection {self._form!r}")
        try:
            kept = {name: Kept.restored(values) for name, values in state_dict["parameters"].items()}
        except KeyError as error:
            raise ValueError(f"the state has no {error}: it is damaged") from None
        for name, each in self._adapted.items():
            if name in kept:
                kept[name] = kept[name].to(each.weight.device)
                refuse_other_base(name, each, kept[name])
        self.ewc_lambda, self._kept = state_dict["ewc_lambda"], kept
        self._adder.forget()
        self._tell_others()

    def save(self, path: str | Path) -> None:
        """Write the state to a safetensors file: complete, or not there."""
        write(self.state_dict(), path)

    @classmethod
    def load(cls, path: str | Path, model: nn.Module, optimizer: Optimizer, *, attach: bool = True) -> BaseProtection:
        """From a file that ``save`` wrote.

        Raises:
            FileNotFoundError: No such file.
            StateError: Not such a file, or damaged.
            RWalkError: As when it is built, or the base is not the one that was protected.
        """
        state = read(path)
        loaded = cls(model, optimizer, state["ewc_lambda"], importance=state["importance"], attach=False)
        loaded.load_state_dict(state)
        if attach:
            loaded.attach()
        return loaded

    # --- what cannot work ---------------------------------------------------------------------------------------------

    def _refuse_merged(self, what: str) -> None:
        for name, each in self._adapted.items():
            if each.layer.merged_adapters:
                raise RWalkError(
                    f"{what} while adapter {each.layer.merged_adapters[0]!r} is merged into {name}: unmerge_adapter() "
                    "first, or merge_and_unload(), get_peft_model() and follow(model, optimizer)"
                )

    def _check_base(self) -> None:
        for name, each in self._adapted.items():
            refuse_other_base(name, each, self._kept.get(name))

    def _tell_others(self) -> None:
        if not self._kept:
            return
        new = [name for name in self._adapted if name not in self._kept]
        if new:
            log.warning("%d adapted weight(s) are not protected, first %s: protect() again", len(new), new[0])
        known = {id(p) for each in self._adapted.values() for part in each.active() for p in (part.left, part.right)}
        moved = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        others = [n for n, p in self.model.named_parameters() if id(p) in moved - known and "lora_" not in n]
        if others:
            log.warning(
                "%d parameter(s) are trained whole, first %s, and not held by this: RWalk(model, optimizer, "
                "RWalkConfig(include=(...))).protect(batches), attached first, holds them",
                len(others),
                others[0],
            )


_ATTACHED: WeakKeyDictionary[Optimizer, ref[BaseProtection]] = WeakKeyDictionary()
