"""Each experience ends at the average of the weights on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rwalk.core.averaging import POWER
from rwalk.core.sharding import local
from rwalk.models.wrappers import unwrapped
from rwalk.training.events import BasePlugin

__all__ = ["WeightAveragePlugin"]


class WeightAveragePlugin(BasePlugin):
    r"""Sets the model to the average of an experience's iterates when the experience ends.

    At a learning rate that stays, the last weights lie where the last batches' noise has pushed them, around a minimum
    rather than in it; their average lies nearer, without a schedule for which the length of a task would have to be
    known. Late iterates count most (:math:`w_k \propto k (k+1) (k+2)`: mostly the last quarter of the task). Training
    itself goes on from the iterates; the next experience begins at the average.

    Weights that are trained are averaged, and the floating-point buffers with them (a batch normalization's statistics
    are then nearly those of the averaged network; ``torch.optim.swa_utils.update_bn`` measures them exactly).

    Put it after ``RWalkPlugin``, whose scores then are of the steps alone, and let that hold the same average, with
    ``anchor_at="average"``; before plugins that look at the finished model (replay, MAS, LwF). A second model's memory
    is needed.

    Args:
        every: Optimizer steps from one iterate that is averaged to the next, as ``average_every`` counts them: an iteration
            that only accumulates gradients is none, nor is a step that a gradient scaler skips.

    Raises:
        ValueError: ``every`` is no positive whole number.

    Example:
        >>> from rwalk.training import RWalkPlugin
        >>> plugins = [RWalkPlugin(ewc_lambda=10.0), WeightAveragePlugin()]
        >>> plugins[0].config = plugins[0].config.replace(anchor_at="average")

    References:
        Shamir & Zhang, *Stochastic Gradient Descent for Non-smooth Optimization*, ICML 2013: averaging with polynomial
        decay, as in ``rwalk.core.averaging``.
    """

    supports_distributed = True

    def __init__(self, every: int = 10) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every={every!r}: expected a positive whole number of steps")
        self.every = every
        self._steps = self._count = 0
        self._average: dict[str, Tensor] = {}

    def moment_dict(self, strategy: Any) -> dict[str, Any]:
        """The average so far."""
        return {"steps": self._steps, "count": self._count, "average": dict(self._average)}

    def load_moment_dict(self, strategy: Any, moment: dict[str, Any]) -> None:
        """Go on averaging."""
        places = _averaged(strategy.model)
        self._steps, self._count = int(moment["steps"]), int(moment["count"])
        self._average = {name: value.to(places[name].device, copy=True) for name, value in moment["average"].items()}

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Begin anew."""
        self._steps = self._count = 0
        self._average = {}

    @torch.no_grad()
    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Every so often, take the weights into the average."""
        engine = getattr(strategy, "engine", None)  # elsewhere each iteration is a step
        if engine is not None and not engine.stepped:
            return
        self._steps += 1
        if self._steps % self.every:
            return
        self._count += 1
        share = (POWER + 1) / (self._count + POWER)
        for name, value in _averaged(strategy.model).items():
            if name in self._average:
                self._average[name].lerp_(value.to(self._average[name].dtype), share)
            else:  # the first iterate, or a layer that is new
                self._average[name] = value.to(torch.promote_types(value.dtype, torch.float32), copy=True)

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """The model takes the average's place, in its own memory; after fewer than ``every`` steps it stays."""
        places = _averaged(strategy.model)
        for name, value in self._average.items():
            places[name].copy_(value)
        self._average = {}


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    """Weights that are trained and buffers that are numbers, by name; of sharded ones this process's shard."""
    inner = unwrapped(model)
    weights = {name: local(weight) for name, weight in inner.named_parameters() if weight.requires_grad}
    return weights | {name: local(value) for name, value in inner.named_buffers() if value.is_floating_point()}
