r"""What continual learning is judged by, from the accuracies :math:`a_{k,j}`.

:math:`a_{k,j}` is the accuracy on task j after training on task k; rows and columns run over 1..T. All functions take
it as a square float64 tensor (NaN where nothing was measured) and return a float, or None where it is not defined.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "average_accuracy",
    "backward_transfer",
    "forgetting",
    "forward_transfer",
    "intransigence",
    "learning_accuracy",
]


def average_accuracy(accuracy: Tensor) -> float | None:
    r"""Mean accuracy over all tasks learned, :math:`A_k = \frac1k \sum_{j \le k} a_{k,j}`.

    Args:
        accuracy: (k, k), fractions in [0, 1].

    Example:
        >>> average_accuracy(torch.tensor([[1.0, 0.0], [0.5, 1.0]]))
        0.75

    References:
        Chaudhry et al. 2018, Section 3.
    """
    return _mean(accuracy[-1])


def forgetting(accuracy: Tensor) -> float | None:
    r"""How far tasks fell from their best, :math:`F_k = \frac1{k-1}\sum_{j<k} (\max_{l<k} a_{l,j} - a_{k,j})`.

    Args:
        accuracy: (k, k), fractions in [0, 1].

    Returns:
        A number in [-1, 1], lower is better; None for the first task.

    Example:
        >>> forgetting(torch.tensor([[1.0, 0.0], [0.5, 1.0]]))
        0.5

    Note:
        Entries that were not measured (NaN) do not count in the maximum.

    References:
        Chaudhry et al. 2018, Eq. 3.
    """
    best = accuracy[:-1].nan_to_num(nan=-torch.inf).amax(dim=0)[:-1] if len(accuracy) > 1 else accuracy[0, :0]
    best = best.where(best.isfinite(), torch.nan)
    return _mean(best - accuracy[-1, : len(best)])


def backward_transfer(accuracy: Tensor) -> float | None:
    r"""How later tasks changed earlier ones, :math:`\frac1{k-1}\sum_{j<k} (a_{k,j} - a_{j,j})`; higher is better.

    Args:
        accuracy: (k, k), fractions in [0, 1].

    Example:
        >>> backward_transfer(torch.tensor([[1.0, 0.0], [0.5, 1.0]]))
        -0.5

    References:
        Lopez-Paz and Ranzato, *Gradient Episodic Memory*, NeurIPS 2017.
    """
    return _mean((accuracy[-1] - accuracy.diagonal())[:-1])


def forward_transfer(accuracy: Tensor, untrained: Tensor | None) -> float | None:
    r"""What earlier tasks gave to later ones, :math:`\frac1{k-1}\sum_{j>1} (a_{j-1,j} - b_j)`; higher is better.

    Args:
        accuracy: (k, k), fractions in [0, 1]; entries above the diagonal must have been measured.
        untrained: (k,), accuracy :math:`b_j` of the untrained model on each task.

    Example:
        >>> forward_transfer(torch.tensor([[1.0, 0.5], [0.5, 1.0]]), torch.tensor([0.25, 0.25]))
        0.25

    References:
        Lopez-Paz and Ranzato, *Gradient Episodic Memory*, NeurIPS 2017.
    """
    return None if untrained is None else _mean(accuracy.diagonal(offset=1) - untrained[1:])


def learning_accuracy(accuracy: Tensor) -> float | None:
    r"""Accuracy on each task right after learning it, :math:`\frac1k \sum_j a_{j,j}`.

    Args:
        accuracy: (k, k), fractions in [0, 1].

    Example:
        >>> learning_accuracy(torch.tensor([[1.0, 0.0], [0.5, 0.8]], dtype=torch.float64))
        0.9

    References:
        Riemer et al., *Learning to Learn without Forgetting*, ICLR 2019.
    """
    return _mean(accuracy.diagonal())


def intransigence(accuracy: Tensor, reference: Tensor | None) -> float | None:
    r"""Inability to learn the new task, :math:`I_k = a^*_k - a_{k,k}`.

    Args:
        accuracy: (k, k), fractions in [0, 1].
        reference: (k,), accuracy :math:`a^*_k` on task k of a reference model trained jointly on tasks 1..k.

    Returns:
        A number in [-1, 1], lower is better, of the last task.

    Example:
        >>> intransigence(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([1.0, 0.75]))
        0.25

    References:
        Chaudhry et al. 2018, Eq. 4.
    """
    return None if reference is None else _mean(reference[-1:] - accuracy[-1, -1:])


def _mean(values: Tensor) -> float | None:
    if values.numel() == 0 or bool(values.isnan().any()):
        return None
    return round(float(values.double().mean()), 12)
