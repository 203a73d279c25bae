"""Riemannian Walk as a plugin."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rwalk.core import RWalk, RWalkConfig
from rwalk.core.hooks import base_optimizer
from rwalk.errors import RWalkError
from rwalk.streams import data_loader
from rwalk.training.events import HOOKS, BasePlugin

__all__ = ["RWalkPlugin"]


class RWalkPlugin(BasePlugin):
    r"""Protects what past experiences taught, in any strategy that follows the hook protocol.

    The same object works in this package's templates and in ``avalanche.training`` strategies. The gradient is read
    from the strategy's own optimizer step: no second forward or backward pass, no change to the model's mode, and
    ``strategy.loss`` stays the plain loss.

    Args:
        ewc_lambda: Strength :math:`\lambda` of the penalty; 0.1 if None.
        ewc_alpha: Weight :math:`\alpha` of the new squared gradient in the Fisher; 0.9 if None.
        delta_t: Iterations :math:`\Delta t` between checkpoints of the path score; 10 if None.
        config: All settings at once; then leave the three out.
        gradient: ``"step"``, or for comparison only ``"eval_pass"``: as Avalanche's plugin does, an extra forward and
            backward pass in eval mode, in which the model then *stays* (dropout off, BatchNorm frozen).

    Raises:
        TypeError: Both ``config`` and one of the three are given.
        ValueError: A setting is out of range.
        RWalkError: In training: two of these plugins in one strategy, a strategy of another protocol, or a model
            replaced by one that lacks parameters whose importances are kept.

    Attributes:
        rwalk: The core; None until training begins.

    Example:
        >>> RWalkPlugin(ewc_lambda=10.0).config.ewc_lambda
        10.0
    """

    supports_distributed = True

    def __init__(
        self,
        ewc_lambda: float | None = None,
        ewc_alpha: float | None = None,
        delta_t: int | None = None,
        *,
        config: RWalkConfig | None = None,
        gradient: Literal["step", "eval_pass"] = "step",
    ) -> None:
        given = {"ewc_lambda": ewc_lambda, "ewc_alpha": ewc_alpha, "delta_t": delta_t}
        changes = {name: value for name, value in given.items() if value is not None}
        if config is not None and changes:
            raise TypeError(f"config= and {', '.join(changes)} both given: put {', '.join(changes)} into the config")
        if gradient not in ("step", "eval_pass"):
            raise ValueError(f"gradient={gradient!r}: expected 'step' or 'eval_pass'")
        self.config = config if config is not None else RWalkConfig.from_dict(changes)
        self.gradient = gradient
        self.rwalk: RWalk | None = None
        self._measured: dict[nn.Parameter, Tensor] = {}

    def before_training(self, strategy: Any, **kwargs: Any) -> None:
        """Make sure that this strategy can be followed; a window left open by an earlier ``train`` call is dropped."""
        _check_strategy(strategy)
        if self.rwalk is not None:
            self.rwalk.drop_window()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Follow the strategy's model and optimizer, which may be others than last time."""
        self._follow(strategy)

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Follow an optimizer or model put in place since. With ``gradient="eval_pass"``, measure the gradient."""
        rwalk = self.rwalk
        if (
            rwalk is None
            or rwalk.model is not strategy.model
            or rwalk.optimizer is not base_optimizer(strategy.optimizer)
        ):
            self._follow(strategy)
        if self.gradient == "eval_pass":
            self._measured = _gradients_in_eval_mode(strategy)

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        """With ``gradient="eval_pass"``: tell the core what was measured (else it sees the optimizer's step itself)."""
        if self.gradient == "eval_pass" and self.rwalk is not None:
            self.rwalk.before_step(gradients=self._measured)

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        """With ``gradient="eval_pass"``: tell the core that the optimizer has stepped."""
        if self.gradient == "eval_pass" and self.rwalk is not None:
            self.rwalk.after_step()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """The task ends. Steps taken until the next experience begins are not followed."""
        if self.rwalk is not None:
            if self.config.fisher_source == "loader":
                batches = data_loader(strategy.adapted_dataset, strategy.train_mb_size, shuffle=False)
                self.rwalk.consolidate(batches, forward=partial(_forward, strategy))
            else:
                self.rwalk.consolidate()
            if self.rwalk.attached:
                self.rwalk.detach()

    def _follow(self, strategy: Any) -> None:
        if self.rwalk is None:
            self.rwalk = RWalk(strategy.model, strategy.optimizer, self.config, attach=False)
        else:
            if self.rwalk.attached:  # training was interrupted, or the optimizer was replaced
                self.rwalk.detach()
            self.rwalk.follow(strategy.model, strategy.optimizer)
        if self.gradient == "step":
            self.rwalk.attach()


def _forward(strategy: Any, batch: Any) -> Tensor:
    """The strategy's own forward pass on a batch: it knows about heads and devices."""
    strategy.mbatch = [part.to(strategy.device) for part in batch]
    outputs: Tensor = strategy.forward()
    return outputs


def _check_strategy(strategy: Any) -> None:
    """Refuse a strategy in which the plugin could not work.

    Raises:
        RWalkError: It has two of these plugins, or its protocol lacks hooks or state that the plugin needs.
    """
    name = type(strategy).__name__
    if sum(isinstance(other, RWalkPlugin) for other in strategy.plugins) > 1:
        raise RWalkError(f"{name} has two RWalkPlugins, which would penalise twice: keep one")
    missing = [state for state in ("model", "optimizer", "clock") if not hasattr(strategy, state)]
    protocol = getattr(strategy, "PLUGIN_CLASS", None)
    missing += [hook for hook in HOOKS if protocol is not None and not hasattr(protocol, hook)]
    if missing:
        raise RWalkError(
            f"{name} follows another protocol: it has no {missing[0]!r}. RWalkPlugin follows avalanche-lib 0.6; "
            "elsewhere, attach rwalk.RWalk to the optimizer instead"
        )


def _gradients_in_eval_mode(strategy: Any) -> dict[nn.Parameter, Tensor]:
    strategy.model.eval()
    strategy.optimizer.zero_grad()
    with torch.enable_grad():
        strategy._criterion(strategy.forward(), strategy.mb_y).backward()
    return {p: p.grad.clone() for p in strategy.model.parameters() if p.grad is not None}
