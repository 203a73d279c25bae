"""Riemannian Walk as a plugin."""

from __future__ import annotations

from typing import Any

from rwalk.core import RWalk, RWalkConfig
from rwalk.training.events import BasePlugin

__all__ = ["RWalkPlugin"]


class RWalkPlugin(BasePlugin):
    r"""Protects what past experiences taught, in any strategy that follows the hook protocol.

    The gradient is read from the strategy's own optimizer step: no second forward or backward pass, no change to the
    model's mode, and ``strategy.loss`` stays the plain loss.

    Args:
        ewc_lambda: Strength :math:`\lambda` of the penalty.
        ewc_alpha: Weight :math:`\alpha` of the new squared gradient in the Fisher.
        delta_t: Iterations :math:`\Delta t` between checkpoints of the path score.
        config: All settings at once; then leave the three out.

    Raises:
        TypeError: Both ``config`` and one of the three are given.
        ValueError: A setting is out of range.

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
    ) -> None:
        given = {"ewc_lambda": ewc_lambda, "ewc_alpha": ewc_alpha, "delta_t": delta_t}
        changes = {name: value for name, value in given.items() if value is not None}
        if config is not None and changes:
            raise TypeError(f"config= and {', '.join(changes)} both given: put {', '.join(changes)} into the config")
        self.config = config if config is not None else RWalkConfig(**changes)  # type: ignore[arg-type]
        self.rwalk: RWalk | None = None

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Follow the strategy's optimizer."""
        if self.rwalk is None:
            self.rwalk = RWalk(strategy.model, strategy.optimizer, self.config)
        elif not self.rwalk.attached:
            self.rwalk.attach(strategy.optimizer)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """The task ends; steps taken outside of training are nobody's business."""
        if self.rwalk is not None:
            self.rwalk.consolidate()
            self.rwalk.detach()
