r"""The equations of Riemannian Walk as pure functions.

Notation: :math:`\theta` parameters, :math:`g` gradient of the loss *without* penalty, :math:`F` diagonal empirical
Fisher, :math:`s` score, :math:`\theta^*` anchor, :math:`\alpha` weight of the new term, :math:`\varepsilon` damping,
:math:`\lambda` strength. Every function works elementwise on tensors of one shape, dtype and device, and returns a
new tensor unless ``out`` names one to write to (which may be an input: then the update is in place and allocates
nothing). Equation numbers are those of arXiv:1801.10112v3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rwalk.core.config import Scaling, ScoreAverage

__all__ = [
    "average_scores",
    "fisher_ema",
    "fisher_merge",
    "largest_stable_curvature",
    "loss_change",
    "path_score",
    "penalty",
    "penalty_gradient",
    "proximal_step",
    "riemannian_distance",
    "scale",
]

#: Weights of the old score, of the new one, and of the new one in the first task.
AVERAGES: dict[ScoreAverage, tuple[float, float, float]] = {
    "mean": (0.5, 0.5, 1.0),
    "mean_from_zero": (0.5, 0.5, 0.5),
    "sum": (1.0, 1.0, 1.0),
    "accumulate": (1.5, 0.5, 1.0),
    "latest": (0.0, 1.0, 1.0),
}


def riemannian_distance(
    fisher: Tensor | None, step: Tensor, factor: float = 0.5, *, out: Tensor | None = None
) -> Tensor:
    r"""Each parameter's share of the KL divergence, :math:`\tfrac12 F_i \Delta_i^2`, the score's denominator.

    Args:
        fisher: Diagonal Fisher, any shape; None takes the identity, which makes the distance Euclidean.
        step: Displacement :math:`\Delta`, same shape.
        factor: What the distance is multiplied by.
        out: Where to write; may be ``step``.

    Returns:
        A tensor of that shape.
    """
    squared = torch.mul(step, step, out=out)
    return (squared if fisher is None else squared.mul_(fisher)).mul_(factor)


def fisher_ema(fisher: Tensor, gradient: Tensor, alpha: float, *, out: Tensor | None = None) -> Tensor:
    r"""One update of the moving Fisher, "EWC++" (Eq. 6).

    .. math:: F_t = \alpha\, g_t^2 + (1 - \alpha)\, F_{t-1}

    Args:
        fisher: :math:`F_{t-1}`, any shape. The caller makes the first iteration :math:`F = g^2` (``alpha=1``).
        gradient: :math:`g_t`, the mean gradient of the batch, same shape.
        alpha: Weight of the new term, in [0, 1].
        out: Where to write; may be ``fisher``.

    Returns:
        :math:`F_t`.

    Example:
        >>> fisher_ema(torch.tensor([1.0]), torch.tensor([3.0]), 0.5)
        tensor([5.])
    """
    return torch.mul(fisher, 1.0 - alpha, out=out).addcmul_(gradient, gradient, value=alpha)


def fisher_merge(fisher: Tensor, estimate: Tensor, alpha: float, *, out: Tensor | None = None) -> Tensor:
    r"""Merge an estimate of the Fisher made elsewhere into the moving one, :math:`(1-\alpha) F + \alpha \hat F`.

    Args:
        fisher: :math:`F`, any shape.
        estimate: :math:`\hat F`, same shape.
        alpha: Weight of the estimate, in [0, 1].
        out: Where to write; may be ``fisher``.

    Returns:
        The merged Fisher.
    """
    return torch.lerp(fisher, estimate, alpha, out=out)


def loss_change(accumulated: Tensor, gradient: Tensor, decrease: Tensor, *, out: Tensor | None = None) -> Tensor:
    r"""Add one iteration to a window's first-order loss change (Eq. 7).

    .. math:: \Delta L \mathrel{+}= -g_t\,(\theta_{t+1} - \theta_t) = g_t\,(\theta_t - \theta_{t+1})

    Positive where the parameter's move lowered the loss.

    Args:
        accumulated: :math:`\Delta L` so far, any shape.
        gradient: :math:`g_t` of the unpenalised loss, same shape.
        decrease: :math:`\theta_t - \theta_{t+1}`, all that moved the weights from one gradient to the next, same shape.
        out: Where to write; may be ``accumulated``.

    Returns:
        The new :math:`\Delta L`.

    Example:
        >>> loss_change(torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([0.5]))
        tensor([2.])
    """
    return torch.addcmul(accumulated, gradient, decrease, out=out)


def path_score(loss_change: Tensor, distance: Tensor, damping: float | Tensor, *, out: Tensor | None = None) -> Tensor:
    r"""Score of one window: loss change per unit of Riemannian distance.

    .. math:: s = \frac{\Delta L}{\tfrac12 F\,(\theta(t+\Delta t) - \theta(t))^2 + \varepsilon}

    Args:
        loss_change: :math:`\Delta L` of the window, any shape.
        distance: ``riemannian_distance`` of the window's displacement, same shape.
        damping: :math:`\varepsilon > 0`, a number or a scalar tensor.
        out: Where to write; may be ``distance``.

    Returns:
        The window's score.

    Example:
        >>> path_score(torch.tensor([1.0, -1.0]), torch.tensor([0.5, 0.0]), 0.5)
        tensor([ 1., -2.])
    """
    damped = torch.add(distance, damping, out=out)
    return torch.div(loss_change, damped, out=damped)


def average_scores(
    old: Tensor, new: Tensor | None, tasks_before: int, mode: ScoreAverage = "mean", *, out: Tensor | None = None
) -> Tensor:
    r"""Score at a task's end: the mean of old and new, :math:`s \leftarrow \tfrac12 (s_\text{old} + s_\text{new})`.

    Args:
        old: :math:`s_\text{old}`, any shape.
        new: :math:`s_\text{new}`, same shape. None: its windows were added on top of ``old``, so that the average
            needs no second buffer; only where old and new weigh the same.
        tasks_before: How many tasks ended before this one; at 0 there is no old score.
        mode: ``"mean"``: the first task's score is kept whole. ``"mean_from_zero"``: it is halved. ``"sum"``: old plus
            new. ``"accumulate"``: 1.5 old + 0.5 new, the first kept whole (the authors' code of 2018). ``"latest"``:
            new.
        out: Where to write; may be ``old``.

    Returns:
        The averaged score.

    Example:
        >>> average_scores(torch.tensor([1.0]), torch.tensor([3.0]), 1)
        tensor([2.])
    """
    weight_of_old, weight_of_new, weight_of_first = AVERAGES[mode]
    weight = weight_of_new if tasks_before else weight_of_first
    if new is None:
        return torch.mul(old, weight, out=out)
    return torch.mul(old, weight_of_old, out=out).add_(new, alpha=weight)


def scale(value: Tensor, low: Tensor, high: Tensor, mode: Scaling) -> Tensor:
    r"""Bring Fisher or score to a common scale, [0, 1] as published (end of Section 4.2).

    Args:
        value: Non-negative tensor of any shape.
        low: Scalar tensor, the minimum over *all* parameters; used by ``"minmax"``.
        high: Scalar tensor, the maximum over all parameters; with ``"sum"`` their sum.
        mode: ``"max"`` and ``"sum"``: value / high. ``"minmax"``: (value - low) / (high - low). ``"none"``: a copy.

    Returns:
        The scaled tensor. Where the range is empty (``high == 0``, or ``high == low``) it is zero, never NaN.

    Example:
        >>> scale(torch.tensor([0.0, 2.0]), torch.tensor(0.0), torch.tensor(2.0), "max")
        tensor([0., 1.])
        >>> scale(torch.zeros(2), torch.tensor(0.0), torch.tensor(0.0), "max")
        tensor([0., 0.])
    """
    if mode == "none":
        return value.clone()
    offset = low if mode == "minmax" else torch.zeros_like(low)
    span = high - offset
    return torch.where(span > 0, (value - offset) / span, 0.0)


def penalty(importance: Tensor, parameter: Tensor, anchor: Tensor, ewc_lambda: float) -> Tensor:
    r"""What RWalk adds to the loss (Eq. 8). No factor one half.

    .. math:: \lambda \sum_i (F_i + s_i)\,(\theta_i - \theta^*_i)^2

    Args:
        importance: :math:`F + s`, any shape.
        parameter: :math:`\theta`, same shape.
        anchor: :math:`\theta^*`, same shape.
        ewc_lambda: :math:`\lambda`.

    Returns:
        A scalar tensor, differentiable in ``parameter``.

    Example:
        >>> penalty(torch.tensor([2.0]), torch.tensor([3.0]), torch.tensor([1.0]), 0.5)
        tensor(4.)
    """
    return ewc_lambda * (importance * (parameter - anchor).square()).sum()


def penalty_gradient(
    importance: Tensor, parameter: Tensor, anchor: Tensor, ewc_lambda: float, *, out: Tensor | None = None
) -> Tensor:
    r"""Gradient of ``penalty`` in closed form, :math:`2 \lambda (F + s)(\theta - \theta^*)`.

    Args:
        importance: :math:`F + s`, any shape.
        parameter: :math:`\theta`, same shape.
        anchor: :math:`\theta^*`, same shape.
        ewc_lambda: :math:`\lambda`.
        out: Where to write; may be ``parameter``.

    Returns:
        A tensor of that shape.

    Example:
        >>> penalty_gradient(torch.tensor([2.0]), torch.tensor([3.0]), torch.tensor([1.0]), 0.5)
        tensor([4.])
    """
    return torch.sub(parameter, anchor, out=out).mul_(importance).mul_(2.0 * ewc_lambda)


def proximal_step(
    importance: Tensor,
    parameter: Tensor,
    anchor: Tensor,
    ewc_lambda: float,
    lr: float | Tensor,
    *,
    out: Tensor | None = None,
) -> Tensor:
    r"""Penalty taken implicitly: the minimiser of :math:`\text{penalty} + \|\theta' - \theta\|^2 / (2\,\mathrm{lr})`.

    .. math:: \theta' = \frac{\theta + c\,\theta^*}{1 + c}, \qquad c = 2\,\mathrm{lr}\,\lambda\,(F + s)

    The explicit gradient step diverges once :math:`c > 2`; this one never leaves the segment between
    :math:`\theta` and :math:`\theta^*`.

    Args:
        importance: :math:`F + s`, any shape.
        parameter: :math:`\theta` after the optimizer's step on the plain loss, same shape.
        anchor: :math:`\theta^*`, same shape.
        ewc_lambda: :math:`\lambda`.
        lr: The optimizer's learning rate, a number or a scalar tensor.
        out: Where to write; may be ``parameter``.

    Returns:
        :math:`\theta'`.

    Example:
        >>> proximal_step(torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([1.0]), 0.5, 1.0)
        tensor([2.])

    Note:
        Not in the paper, which takes the gradient step.
    """
    kept = importance.mul(2.0 * ewc_lambda * lr).add_(1.0).reciprocal_()
    return torch.lerp(anchor, parameter, kept, out=out)


def largest_stable_curvature(
    lr: float, momentum: float = 0.0, dampening: float = 0.0, *, nesterov: bool = False
) -> float:
    r"""The curvature from which on gradient steps of SGD diverge on a quadratic.

    With momentum :math:`\beta` and dampening :math:`\tau` a step multiplies :math:`(\theta - \theta^*, v)` by a matrix
    whose eigenvalues leave the unit circle where

    .. math:: h > \frac{2(1+\beta)}{\mathrm{lr}\,(1-\tau)}, \qquad
              h > \frac{2(1+\beta)}{\mathrm{lr}\,(1+2\beta)} \text{ with Nesterov's momentum}

    The penalty's curvature is :math:`2\lambda\,\Omega_i` (Eq. 8); the loss adds its own. Optimizers that divide by the
    gradient's root mean square (Adam, RMSprop, Adagrad) take steps of bounded size, so that no curvature makes them
    diverge: under a strong penalty they swing about the anchor by a fraction of the learning rate.

    Args:
        lr: Learning rate.
        momentum: :math:`\beta \in [0, 1)`.
        dampening: :math:`\tau \in [0, 1)`.
        nesterov: Nesterov's momentum, as torch's SGD has it.

    Returns:
        The largest curvature at which the steps converge; infinite for a learning rate of 0.

    Example:
        >>> largest_stable_curvature(0.5), largest_stable_curvature(0.5, momentum=0.5)
        (4.0, 6.0)
    """
    steps = lr * (1.0 + 2.0 * momentum if nesterov else 1.0 - dampening)
    return 2.0 * (1.0 + momentum) / steps if steps > 0.0 else math.inf
