"""Methods by name: what each one plugs into the training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rwalk.core import RWalkConfig
from rwalk.training import BasePlugin, RWalkPlugin

__all__ = ["METHODS", "Method"]


@dataclass(frozen=True)
class Method:
    """A way to learn from a stream.

    Attributes:
        summary: One line about it.
        plugins: What it adds to the loop, given the settings of Riemannian Walk.
        joint: Learn each experience together with all before it, from fresh weights. What this reaches on experience
            k is the reference of intransigence.
    """

    summary: str
    plugins: Callable[[RWalkConfig], list[BasePlugin]]
    joint: bool = False


def _nothing(config: RWalkConfig) -> list[BasePlugin]:  # noqa: ARG001 - every method is given the settings
    return []


METHODS: dict[str, Method] = {
    "fine-tuning": Method("each experience as it comes, nothing against forgetting", _nothing),
    "rwalk": Method("Riemannian Walk", lambda config: [RWalkPlugin(config=config)]),
    "joint": Method("all data so far, from scratch at each experience: the upper bound", _nothing, joint=True),
}
