"""Each experience ends at the average of the weights on the way."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rwalk.core.averaging import POWER
from rwalk.core.hooks import watch_loading
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

    Where ``load_state_dict`` replaces weights, as ``EarlyStoppingPlugin`` does with the best ones, the average begins
    anew, and the step that had led to the old ones does not count. Weights that are put back when the last epoch is
    over stay.

    Put it after ``RWalkPlugin``, whose scores then are of the steps alone, and let that hold the same average, with
    ``anchor_at="average"``; before plugins that look at the finished model (replay, MAS, LwF). A second model's memory
    is needed.

    Args:
        every: Optimizer steps from one iterate that is averaged to the next, as ``average_every`` counts them: an
            iteration that only accumulates gradients is none, nor is a step that a gradient scaler skips.

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
        self._pending = False  # whether the last step is still to be counted
        self._average: dict[str, Tensor] = {}
        self._watching: list[RemovableHandle] = []

    def moment_dict(self, strategy: Any) -> dict[str, Any]:
        """The average so far."""
        self._take_up(strategy)
        return {"steps": self._steps, "count": self._count, "average": dict(self._average)}

    def load_moment_dict(self, strategy: Any, moment: dict[str, Any]) -> None:
        """Go on averaging."""
        places = _averaged(strategy.model)
        self._steps, self._count = int(moment["steps"]), int(moment["count"])
        self._average = {name: value.to(places[name].device, copy=True) for name, value in moment["average"].items()}

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Begin anew."""
        self._steps = 0
        self._replaced()
        self._stop_watching()
        parameters = {id(parameter) for parameter in strategy.model.parameters()}
        self._watching = watch_loading(strategy.model, parameters, self._replaced)

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """The last step has led here."""
        self._take_up(strategy)

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """A step counts when the next begins, as in the core, unless the weights are replaced before."""
        engine = getattr(strategy, "engine", None)  # elsewhere each iteration is a step
        self._pending = engine is None or engine.stepped

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """The model takes the average's place, in its own memory; after fewer than ``every`` steps it stays."""
        self._take_up(strategy)
        self._stop_watching()
        places = _averaged(strategy.model)
        for name, value in self._average.items():
            places[name].copy_(value)
        self._average = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy of the model is not watched."""
        return {**vars(self), "_watching": []}

    @torch.no_grad()
    def _take_up(self, strategy: Any) -> None:
        """Count the pending step; every so often, take the weights into the average."""
        if not self._pending:
            return
        self._pending = False
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

    def _replaced(self) -> None:
        """No step has led to the weights that are there now."""
        self._pending, self._count, self._average = False, 0, {}

    def _stop_watching(self) -> None:
        for handle in self._watching:
            handle.remove()


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    """Weights that are trained and buffers that are numbers, by name; of sharded ones this process's shard."""
    inner = unwrapped(model)
    weights = {name: local(weight) for name, weight in inner.named_parameters() if weight.requires_grad}
    return weights | {name: local(value) for name, value in inner.named_buffers() if value.is_floating_point()}
