"""An optimizer follows the parameters of a model that has changed: what it remembers of them survives."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adagrad, Optimizer

__all__ = ["Parameters", "follow_parameters", "grown_state", "parameters_of", "resized"]

log = logging.getLogger(__name__)

#: Parameters by name, each with the shape that it had.
Parameters = dict[str, tuple[nn.Parameter, torch.Size]]

#: What torch's optimizers keep in a parameter's shape (Adafactor: in its rows and columns) and start at zero.
FROM_ZERO = (
    {"momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "square_avg", "grad_avg"}  # SGD, Adams
    | {"acc_delta", "row_var", "col_var", "variance"}  # Adadelta, Adafactor
)


def parameters_of(model: nn.Module) -> Parameters:
    """The parameters of a model as they are now, to be compared with later."""
    return {name: (parameter, parameter.shape) for name, parameter in model.named_parameters()}


def follow_parameters(optimizer: Optimizer, before: Parameters, model: nn.Module) -> bool:
    """Let an optimizer move the parameters that a model has now, where it moved those that it had before.

    - A parameter that was replaced by another of its name hands over its place and its state; one that grew, in place
      or by being replaced, has its momenta padded with zeros.
    - A new parameter joins the group of its nearest relative among those that the optimizer moves: whose name agrees in
      most parts from the left, then in its last part (weight or bias), then the last of them.
    - One that has left the model leaves the optimizer.
    - Parameters that the optimizer did not move it does not move now, and everything else stays bit for bit.

    Args:
        optimizer: Changed in place; its groups stay the same objects, so that schedulers go on.
        before: ``parameters_of(model)`` before the model was changed.
        model: The model as it is now.

    Returns:
        Whether there was anything to follow.

    Example:
        >>> from rwalk.models import grow
        >>> layer = nn.Linear(2, 2)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
        >>> layer(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> before = parameters_of(layer)
        >>> grow(layer, 3)
        >>> follow_parameters(optimizer, before, layer)
        True
        >>> optimizer.state[layer.bias]["momentum_buffer"]
        tensor([1., 1., 0.])
    """
    now = dict(model.named_parameters())
    had, has = {id(parameter) for parameter, _ in before.values()}, {id(parameter) for parameter in now.values()}
    heirs = {
        name: now[name]
        for name, (old, _) in before.items()
        if id(old) not in has and name in now and id(now[name]) not in had
    }
    groups = _groups_by_name(optimizer, before)
    resized = False
    for name, (old, shape) in before.items():
        present = heirs.get(name, old)
        if present is not old:
            _replace(optimizer, old, present)
        elif id(old) not in has:
            _remove(optimizer, old)
            continue
        if present.shape != shape:
            _resize(optimizer, name, present, shape)
            resized = True
    for name, parameter in now.items():
        if id(parameter) not in had and name not in heirs:
            _join(optimizer.param_groups, groups, name, parameter)
    _begin_sums(optimizer)
    return resized or had != has


def grown_state(
    state: Mapping[str, Any], old: Sequence[int], new: Sequence[int], *, accumulator: float = 0.0
) -> dict[str, Any] | None:
    """What an optimizer remembers of a parameter, after it has another shape: old values in place, zeros elsewhere.

    Args:
        state: The optimizer's state of it. Numbers that belong to the parameter as a whole (steps) are kept.
        old: Shape before.
        new: Shape now, of as many dimensions.
        accumulator: Where Adagrad's sums start.

    Returns:
        The new state, or None if there is a tensor in it whose initial value is not known.
    """
    grown: dict[str, Any] = {}
    for key, value in state.items():
        if (
            value is None
            or isinstance(value, (bool, int, float, str))
            or (isinstance(value, Tensor) and not value.dim())
        ):
            grown[key] = value
        elif isinstance(value, Tensor) and (key in FROM_ZERO or key == "sum") and len(old) == len(new) == value.dim():
            # A dimension that Adafactor has reduced stays at 1.
            sizes = [n if held == o else held for held, o, n in zip(value.shape, old, new, strict=True)]
            grown[key] = resized(value, sizes, accumulator if key == "sum" else 0.0)
        else:
            return None
    return grown


def resized(values: Tensor, shape: Sequence[int], fill: float = 0.0) -> Tensor:
    """Values in place as far as both shapes have room for them, ``fill`` in every other.

    Example:
        >>> resized(torch.tensor([[1.0, 2.0]]), (2, 1))
        tensor([[1.],
                [0.]])
    """
    found = values.new_full(tuple(shape), fill)
    common = tuple(slice(min(had, has)) for had, has in zip(values.shape, shape, strict=True))
    found[common] = values[common]
    return found


def _resize(optimizer: Optimizer, name: str, parameter: nn.Parameter, old: torch.Size) -> None:
    if parameter not in optimizer.state:
        return
    accumulator = float(optimizer.defaults.get("initial_accumulator_value", 0.0))
    state = grown_state(optimizer.state[parameter], old, parameter.shape, accumulator=accumulator)
    if state is None:
        log.warning(
            "%s has grown, and how to grow what %s remembers of it is not known: that starts afresh for this parameter",
            name,
            type(optimizer).__name__,
        )
        del optimizer.state[parameter]
    else:
        optimizer.state[parameter] = state


def _begin_sums(optimizer: Optimizer) -> None:
    """Adagrad begins what it remembers when it is built; in older torch only then."""
    if isinstance(optimizer, Adagrad):
        for parameter in (each for group in optimizer.param_groups for each in group["params"]):
            if parameter not in optimizer.state:
                optimizer.state[parameter] = Adagrad([parameter], **optimizer.defaults).state[parameter]


def _replace(optimizer: Optimizer, old: nn.Parameter, new: nn.Parameter) -> None:
    for group in optimizer.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]
    if old in optimizer.state:
        optimizer.state[new] = optimizer.state.pop(old)


def _remove(optimizer: Optimizer, parameter: nn.Parameter) -> None:
    for group in optimizer.param_groups:
        kept = [index for index, other in enumerate(group["params"]) if other is not parameter]
        for key in ("params", "param_names"):
            if key in group:
                group[key] = [group[key][index] for index in kept]
    optimizer.state.pop(parameter, None)


def _groups_by_name(optimizer: Optimizer, parameters: Parameters) -> dict[str, dict[str, Any]]:
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return {name: group_of[id(p)] for name, (p, _) in parameters.items() if id(p) in group_of}


def _join(
    all_groups: list[dict[str, Any]], groups: dict[str, dict[str, Any]], name: str, parameter: nn.Parameter
) -> None:
    relative = max(reversed(groups), key=lambda other: _kinship(name, other), default=None)
    group = all_groups[0] if relative is None else groups[relative]
    group["params"].append(parameter)
    if "param_names" in group:
        group["param_names"].append(name)


def _kinship(name: str, other: str) -> tuple[int, bool]:
    mine, theirs = name.split("."), other.split(".")
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(mine, theirs, strict=False)))
    return shared, mine[-1] == theirs[-1]
