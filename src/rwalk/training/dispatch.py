"""Which plugins act at which hook, looked up beforehand instead of eight times an iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rwalk.training.events import HOOKS, BasePlugin

__all__ = ["ActingPlugins"]


class ActingPlugins:
    """The plugins of a list that may do something at each hook.

    Left out are those whose hook is ``BasePlugin``'s own, which does nothing. A plugin that inherits nothing may gain a
    hook at any time and is never left out.

    Args:
        plugins: In the order in which they are called.

    Attributes:
        plugins: A copy of the list.
        at: Hook name to plugins, in order.
        on_loss: Whether any acts where the loss is open to changes: from the forward pass to the backward pass.

    Example:
        >>> class Greeting(BasePlugin):
        ...     def before_training(self, strategy, **kwargs): ...
        >>> acting = ActingPlugins([Greeting()])
        >>> len(acting.at["before_training"]), len(acting.at["after_training"])
        (1, 0)
    """

    def __init__(self, plugins: Sequence[Any]) -> None:
        self.plugins = list(plugins)
        self.at = {event: [plugin for plugin in plugins if _may_act(plugin, event)] for event in HOOKS}
        self.on_loss = any(self.at[event] for event in ("before_forward", "after_forward", "before_backward"))
        self._attributes = [vars(plugin) for plugin in plugins if isinstance(plugin, BasePlugin)]
        self._sizes = [len(attributes) for attributes in self._attributes]

    def outdated(self) -> bool:
        """Whether a plugin has gained or lost an attribute since, which may be a hook."""
        return [len(attributes) for attributes in self._attributes] != self._sizes


def _may_act(plugin: Any, event: str) -> bool:
    if not isinstance(plugin, BasePlugin):
        return True
    return getattr(getattr(plugin, event), "__func__", None) is not getattr(BasePlugin, event)
