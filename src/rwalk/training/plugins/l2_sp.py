"""L2-SP as a plugin: every weight alike is held near where the last experience left it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from rwalk.models.following import resized
from rwalk.models.wrappers import unwrapped
from rwalk.training.events import BasePlugin

__all__ = ["L2SPPlugin"]


class L2SPPlugin(BasePlugin):
    r"""Adds :math:`\lambda \sum_i (\theta_i - \theta^*_i)^2` to the loss from the second experience on.

    The plainest penalty there is: what a method of importances is worth is how far it is ahead of this one.

    Args:
        strength: :math:`\lambda`.

    Raises:
        ValueError: ``strength`` is negative.

    Attributes:
        anchors: :math:`\theta^*` by parameter name, where the last experience that trained them left them.

    Example:
        >>> L2SPPlugin(strength=0.5).anchors
        {}

    References:
        Li, Grandvalet and Davoine, *Explicit Inductive Bias for Transfer Learning with Convolutional Networks*, ICML
        2018.
    """

    supports_distributed = True

    def __init__(self, strength: float = 1.0) -> None:
        if not 0.0 <= strength < float("inf"):
            raise ValueError(f"strength={strength!r}: expected a number ≥ 0")
        self.strength = strength
        self.anchors: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """The anchors."""
        return {"anchors": dict(self.anchors)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back the anchors."""
        self.anchors = dict(state_dict["anchors"])

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Parameters that have grown since are free in what is new of them."""
        for name, parameter in unwrapped(strategy.model).named_parameters():
            if name in self.anchors:
                self.anchors[name] = resized(self.anchors[name].to(parameter.device), parameter.shape, fill=math.nan)

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        """Add the penalty to the loss."""
        for name, parameter in unwrapped(strategy.model).named_parameters():
            if name in self.anchors and parameter.requires_grad:
                anchor = self.anchors[name]
                away = parameter - torch.where(anchor.isnan(), parameter.detach(), anchor)
                strategy.loss = strategy.loss + self.strength * away.square().sum()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """What was learned becomes the anchor; what is frozen keeps its own."""
        named = unwrapped(strategy.model).named_parameters()
        self.anchors |= {name: parameter.detach().clone() for name, parameter in named if parameter.requires_grad}
