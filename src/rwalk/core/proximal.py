"""The length of an optimizer's own steps, by which the penalty's implicit step goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from rwalk.core import equations as F
from rwalk.core.config import RWalkConfig
from rwalk.core.sharding import local
from rwalk.core.state import Cohort
from rwalk.errors import RWalkError

__all__ = ["check_rates", "pull", "step_length", "step_lengths"]


def step_length(lr: float | Tensor, second_moment: Tensor, correction: float | Tensor, eps: float) -> Tensor:
    r"""By what Adam multiplies its averaged gradient, :math:`\mathrm{lr} / (\sqrt{v / (1 - \beta_2^t)} + \epsilon)`.

    Args:
        lr: Learning rate.
        second_moment: :math:`v`, any shape.
        correction: :math:`1 - \beta_2^t`; 1 where there is no correction of the start.
        eps: Adam's :math:`\epsilon`.

    Returns:
        A tensor of that shape.

    Example:
        >>> step_length(0.1, torch.tensor([4.0]), 1.0, 0.0)
        tensor([0.0500])
    """
    return lr / (torch.sqrt(second_moment / correction) + eps)


def check_rates(optimizer: Optimizer, config: RWalkConfig) -> None:
    """Make sure that the proximal step has learning rates to go by.

    Raises:
        RWalkError: A group has none (some optimizers find their own), and the config needs one.
    """
    if config.penalty == "proximal" and any(group.get("lr") is None for group in optimizer.param_groups):
        raise RWalkError(
            f"penalty='proximal' goes as far as the learning rate, and {type(optimizer).__name__} has a group without "
            "one ('lr'): give it one, or take penalty='gradient'"
        )


def step_lengths(
    optimizer: Optimizer, cohort: Cohort, rates: Sequence[float | Tensor]
) -> tuple[list[float | Tensor], bool]:
    """How far the optimizer's own steps go, for each parameter a number or a tensor in its shape.

    Args:
        optimizer: Whose second moments (Adam's, RMSprop's, Adagrad's) shorten or lengthen steps, as momentum (SGD's,
            RMSprop's) does, by which a gradient acts more than once; of others the learning rate is the length.
        cohort: Whose parameters.
        rates: Their learning rates.

    Returns:
        The lengths, and whether any of them is each weight's own.
    """
    gains = [(group, _gain(group)) for group in optimizer.param_groups]
    of_parameter = {id(p): found for found in gains for p in found[0]["params"]}
    lengths, apart = [], False
    for entry, rate in zip(cohort.entries, rates, strict=True):
        group, gain = of_parameter.get(id(entry.parameter), ({}, 1.0))
        in_all = rate if gain == 1.0 else rate * gain  # a rate on a device costs a kernel
        lengths.append(_length(optimizer.state.get(entry.parameter, {}), group, in_all))
        apart = apart or lengths[-1] is not in_all
    return lengths, apart


def pull(cohort: Cohort, config: RWalkConfig, lengths: Sequence[float | Tensor], void: Tensor | None) -> None:
    """Take the penalty's proximal step on the weights, as ``Eager.pull`` with a length for each weight.

    Args:
        cohort: Whose weights.
        config: For the strength.
        lengths: As ``step_lengths`` gives them.
        void: One element; if it is not 0, nothing moves. It is not waited for.
    """
    importances, anchors = cohort.views("importance"), cohort.views("anchor")
    for entry, length, importance, anchor in zip(cohort.entries, lengths, importances, anchors, strict=True):
        far = length if void is None else length * (void.reshape(()) == 0)
        theta = local(entry.parameter)
        present, held = theta.to(anchor.dtype), importance.to(anchor.dtype)
        theta.copy_(F.proximal_step(held, present, anchor, config.strength, far))


def _gain(group: dict[str, Any]) -> float:
    """How often a gradient acts in all, by momentum that adds up: a pull that acts once has to be as much stronger."""
    momentum = group.get("momentum")
    if not isinstance(momentum, float) or not 0.0 < momentum < 1.0 or not {"dampening", "alpha"} & group.keys():
        return 1.0
    return (1.0 - float(group.get("dampening", 0.0))) / (1.0 - momentum)


def _length(state: dict[str, Any], group: dict[str, Any], lr: float | Tensor) -> float | Tensor:
    if "exp_avg_sq" in state and "betas" in group:  # Adam and its kin; some count steps elsewhere
        moment, step = local(state.get("max_exp_avg_sq", state["exp_avg_sq"])), state.get("step", group.get("step"))
        correction = 1.0 if step is None else 1.0 - group["betas"][1] ** _count(step)
        return step_length(lr, moment, correction, float(group["eps"]))
    if "square_avg" in state and "alpha" in group:  # RMSprop
        moment = local(state["square_avg"])
        if group.get("centered"):
            moment = moment - local(state["grad_avg"]).square()
        return step_length(lr, moment, 1.0, float(group["eps"]))
    if "sum" in state and "lr_decay" in group:  # Adagrad
        fallen = lr / (1.0 + (_count(state["step"]) - 1.0) * group["lr_decay"])
        return step_length(fallen, local(state["sum"]), 1.0, float(group["eps"]))
    return lr


def _count(step: float | Tensor) -> float | Tensor:
    """As a number, unless that would wait for a device."""
    return step if isinstance(step, Tensor) and step.device.type != "cpu" else float(step)
