"""A moment of a training, between two batches: all that it needs to go on from there as if nothing had happened."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from rwalk.errors import CheckpointError
from rwalk.models.dynamic import is_dynamic
from rwalk.models.wrappers import unwrapped
from rwalk.random_state import random_state, set_random_state
from rwalk.streams.identity import experience_told
from rwalk.streams.passes import Pass

__all__ = ["Moment"]


class Moment:
    """Where a strategy stands in the midst of an experience.

    It holds what ``strategy.state_dict`` holds; what plugins keep during an experience only (``moment_dict``); the
    epoch and where its pass over the data stands; and every random generator. A strategy goes on from it in three
    steps:

    1. ``begin`` loads the states. What was learned is there.
    2. ``train`` is called. It passes over the experiences that are learned, and calls each hook of a beginning once
       (``before_training``, those of the dataset, ``before_training_exp``, ``before_training_epoch``), so that plugins
       make what they need: loaders, attached optimizers, files. ``strategy.resuming`` is True until then.
    3. ``put_back`` loads the states once more, over what these hooks have counted or begun, and then the generators.
       The next batch is the one that would have come.

    So no hook is called twice by a process, and a training that is never interrupted calls the same as ever.

    Args:
        state: What ``of`` has taken down: tensors, numbers and strings in dictionaries, lists and tuples.

    Attributes:
        epoch: The epoch at hand, from 0.
        learned: Experiences learned by all calls of ``train`` that have returned.
        learned_in_call: Experiences learned by the call that was interrupted.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        place = state["place"]
        self.epoch, self.learned_in_call = int(place["epoch"]), int(place["learned_in_call"])
        self.learned = int(place["learned"]) - self.learned_in_call
        self.as_built: nn.Module | None = None

    @classmethod
    def of(cls, strategy: Any) -> Moment:
        """Take down where a strategy stands; see ``between_batches`` of the template for when that may be done."""
        clock = strategy.clock
        return cls(
            {
                "place": {
                    "learned": clock.train_exp_counter,
                    "learned_in_call": strategy._learned_in_call,
                    "epoch": clock.train_exp_epochs,
                    "experience": list(experience_told(strategy.experience)),
                },
                "strategy": strategy.state_dict(),
                "plugins": {name: plugin.moment_dict(strategy) for name, plugin in _with_moments(strategy).items()},
                "engine": strategy.engine.state_dict(),
                "stop": strategy._stop_training,
                "loss": strategy.loss.detach(),
                "pass": strategy._pass.state_dict(),
                "random": random_state(),
            }
        )

    def begin(self, strategy: Any) -> None:
        """Load what was learned; the next call of ``train`` goes on from here.

        Raises:
            CheckpointError: The states do not fit the strategy's model, optimizer or plugins.
        """
        model = unwrapped(strategy.model)
        self.as_built = copy.deepcopy(model) if is_dynamic(model) else None
        with _fitting():
            strategy.load_state_dict(copy.deepcopy(self.state["strategy"]))
        strategy._moment = self

    def put_back(self, strategy: Any) -> None:
        """The strategy stands where it stood.

        Raises:
            CheckpointError: Another experience is being learned, or the states do not fit.
        """
        told, here = self.state["place"].get("experience"), list(experience_told(strategy.experience))
        if not isinstance(told, list) or len(told) != len(here):
            raise CheckpointError("the checkpoint does not tell in which experience it was made")
        if told != here:
            raise CheckpointError(
                f"the checkpoint was made in experience {told[1]} of {told[0]} with {told[-1]} samples, and this is "
                f"experience {here[1]} of {here[0]} with {here[-1]}: train on the stream that it was made on"
            )
        with _fitting():
            self._put_back(strategy)

    def _put_back(self, strategy: Any) -> None:
        strategy.load_state_dict(copy.deepcopy(self.state["strategy"]))
        for name, plugin in _with_moments(strategy).items():
            if name in self.state["plugins"]:
                plugin.load_moment_dict(strategy, self.state["plugins"][name])
        strategy.engine.load_state_dict(self.state["engine"])
        strategy._stop_training = bool(self.state["stop"])
        strategy.loss = self.state["loss"].to(strategy.device)
        strategy._pass = Pass(strategy.dataloader, self.state["pass"])
        set_random_state(self.state["random"])


@contextmanager
def _fitting() -> Iterator[None]:
    """Whatever goes wrong inside is the checkpoint's."""
    try:
        yield
    except CheckpointError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the checkpoint does not fit this model, optimizer or list of plugins "
            f"({(str(error) or type(error).__name__).splitlines()[0]}): build them as they were"
        ) from error


def _with_moments(strategy: Any) -> dict[str, Any]:
    """Plugins that keep something during an experience only, by place and class."""
    return {name: plugin for name, plugin in strategy._stateful().items() if hasattr(plugin, "moment_dict")}
