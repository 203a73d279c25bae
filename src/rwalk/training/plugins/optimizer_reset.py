"""Each experience begins with an optimizer that remembers nothing."""

from __future__ import annotations

from typing import Any

from rwalk.training.events import BasePlugin

__all__ = ["OptimizerResetPlugin"]


class OptimizerResetPlugin(BasePlugin):
    """Empties the optimizer's state (momenta, moments, step counts) before each experience; settings stay.

    Adam's first steps are then as long as those of a new optimizer, instead of being measured by the gradients of the
    task before. The authors of Riemannian Walk train CIFAR-100 so.

    Example:
        >>> OptimizerResetPlugin().state_dict()
        {}
    """

    supports_distributed = True

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Forget; where training goes on in the midst of an experience, its own state is put back after this."""
        strategy.optimizer.state.clear()
