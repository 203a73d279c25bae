"""Something is loaded into a strategy: all of it, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from rwalk.core.hooks import base_optimizer

__all__ = ["all_or_nothing"]

log = logging.getLogger(__name__)

Undo = Callable[[], None]


@contextmanager
def all_or_nothing(strategy: Any) -> Iterator[None]:
    """Inside, states are loaded into a strategy; after an error its model, optimizer and plugins are what they were.

    Objects stay the same ones: whoever holds a parameter, or a group of the optimizer, goes on holding it. Kept
    meanwhile are a copy of the model's tensors and one of the plugins' states. What an optimizer remembers is replaced
    in loading and never written to, so that it need not be copied.
    """
    model, call = strategy.model, strategy._call
    undo = [_model(model), _optimizer(base_optimizer(strategy.optimizer))]
    undo += [_plugin(name, plugin) for name, plugin in strategy._stateful().items()]
    try:
        yield
    except BaseException:
        strategy.model, strategy._call = model, call
        for act in undo:  # plugins last: they look at the model and the optimizer
            act()
        raise


def _model(model: nn.Module) -> Undo:
    """Its modules, its parameters and buffers, and what else its modules keep in their attributes."""
    modules = [_attributes(module) for module in model.modules()]
    more = [(module, _copied(module.get_extra_state())) for module in model.modules() if _has_extra_state(module)]
    tensors = [tensor for tensor in (*model.parameters(), *model.buffers()) if not is_lazy(tensor)]
    values = [tensor.detach().clone() for tensor in tensors]

    @torch.no_grad()
    def undo() -> None:
        for act in modules:
            act()
        for module, state in more:
            module.set_extra_state(state)
        for tensor, value in zip(tensors, values, strict=True):
            if tensor.shape == value.shape:
                tensor.copy_(value)
            else:
                tensor.data = value

    return undo


def _has_extra_state(module: nn.Module) -> bool:
    return type(module).get_extra_state is not nn.Module.get_extra_state


def _optimizer(optimizer: Optimizer) -> Undo:
    groups, state = optimizer.param_groups, optimizer.state
    settings = [(group, {**group, "params": list(group["params"])}) for group in groups]
    remembered = dict(state)

    def undo() -> None:
        for group, kept in settings:
            _refill(group, kept)
        groups[:] = [group for group, _ in settings]
        _refill(state, remembered)
        optimizer.param_groups, optimizer.state = groups, state

    return undo


def _plugin(name: str, plugin: Any) -> Undo:
    state, attributes = _copied(plugin.state_dict()), _attributes(plugin)

    def undo() -> None:
        try:
            if state:
                plugin.load_state_dict(state)
        except Exception as error:  # whatever it finds wrong with what it has just given
            log.warning("plugin %s does not take back the state that it had (%s)", name, error)
        attributes()

    return undo


def _attributes(thing: Any) -> Undo:
    """The attributes of an object, and what those of them hold that are dictionaries, lists or sets."""
    names: dict[str, Any] = getattr(thing, "__dict__", {})
    held = dict(names)
    contents = [
        (value, list(value) if isinstance(value, list) else dict(value) if isinstance(value, dict) else set(value))
        for value in held.values()
        if isinstance(value, dict | list | set)
    ]

    def undo() -> None:
        _refill(names, held)
        for container, content in contents:
            _refill(container, content)

    return undo


def _refill(container: Any, content: Any) -> None:
    if isinstance(container, list):
        container[:] = content
    else:
        container.clear()
        container.update(content)


def _copied(state: Any) -> Any:
    """Its tensors, which a plugin may be using, as tensors of their own."""
    return pytree.tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, Tensor) else leaf, state)
