"""Each experience ends at the average of the weights on the way."""

from __future__ import annotations

from collections.abc import Collection
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
    are then nearly those of the averaged network; ``torch.optim.swa_utils.update_bn`` measures them exactly). What is
    frozen after it was trained goes on being averaged, as in the core: frozen in the middle of an experience, it ends
    at the average too, and otherwise it stays where it is.

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
        self._steps = 0
        self._pending = False  # whether the last step is still to be counted
        self._trained: set[str] = set()  # names of weights, in this experience or an earlier one
        self._counts: dict[str, int] = {}  # iterates in each average
        self._average: dict[str, Tensor] = {}
        self._watching: list[RemovableHandle] = []

    def state_dict(self) -> dict[str, Any]:
        """Which weights have been trained."""
        return {"trained": sorted(self._trained)} if self._trained else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back which weights have been trained."""
        self._trained = set(state_dict.get("trained", ()))

    def moment_dict(self, strategy: Any) -> dict[str, Any]:
        """The average so far."""
        self._take_up(strategy)
        return {"steps": self._steps, "counts": dict(self._counts), "average": dict(self._average)}

    def load_moment_dict(self, strategy: Any, moment: dict[str, Any]) -> None:
        """Go on averaging."""
        places = _places(strategy.model)
        self._steps, self._counts = int(moment["steps"]), dict(moment["counts"])
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
        if self._pending and not (self._steps + 1) % self.every:
            named = unwrapped(strategy.model).named_parameters()
            self._trained |= {name for name, weight in named if weight.requires_grad}

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """The model takes the average's place, in its own memory; after fewer than ``every`` steps it stays."""
        self._take_up(strategy)
        self._stop_watching()
        places = _places(strategy.model)
        for name, value in self._average.items():
            if name in places and places[name].shape == value.shape:  # it has neither gone nor grown since
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
        for name, value in _places(strategy.model, self._trained).items():
            mean = self._average.get(name)
            self._counts[name] = count = 1 if mean is None or mean.shape != value.shape else self._counts[name] + 1
            if mean is None or count == 1:
                self._average[name] = value.to(torch.promote_types(value.dtype, torch.float32), copy=True)
            else:
                mean.lerp_(value.to(mean.dtype), (POWER + 1) / (count + POWER))

    def _replaced(self) -> None:
        """No step has led to the weights that are there now."""
        self._pending, self._counts, self._average = False, {}, {}

    def _stop_watching(self) -> None:
        for handle in self._watching:
            handle.remove()


def _places(model: nn.Module, weights: Collection[str] | None = None) -> dict[str, Tensor]:
    """Weights of these names (of any if None) and buffers that are numbers; of sharded ones this process's shard."""
    inner = unwrapped(model)
    chosen = {name: local(weight) for name, weight in inner.named_parameters() if weights is None or name in weights}
    return chosen | {name: local(value) for name, value in inner.named_buffers() if value.is_floating_point()}
