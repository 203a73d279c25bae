"""The penalty on a weight that moves by a product of two thin matrices, as LoRA's adapters move it.

The change is D = L R with L of shape (m, k) and R of shape (k, n), and its importance Ω is whole, of shape (m, n), or
factored into a row and a column. All functions take leading batch dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Factored", "Importance", "factor", "penalty", "penalty_gradients"]

Factored = tuple[Tensor, Tensor]
Importance = Tensor | Factored


def factor(importance: Tensor) -> Factored:
    r"""Row and column of the nearest importance of rank one.

    .. math:: \Omega_{ij} \approx r_i c_j, \quad r_i = \tfrac1n \sum_j \Omega_{ij}, \quad
        c_j = \sum_i \Omega_{ij} \Big/ \sum_i r_i

    Sums over rows, over columns and over all are kept. Among products r_i c_j it is the nearest in the generalised
    Kullback–Leibler divergence.

    Args:
        importance: Non-negative, shape (..., m, n).

    Returns:
        r of shape (..., m) and c of shape (..., n); zero where all is zero.

    Example:
        >>> r, c = factor(torch.tensor([[1.0, 3.0], [2.0, 6.0]]))
        >>> r.unsqueeze(-1) * c
        tensor([[1., 3.],
                [2., 6.]])

    References:
        Shazeer and Stern, *Adafactor*, ICML 2018, arXiv:1804.04235, Section 3.
    """
    row, column = importance.mean(-1), importance.sum(-2)
    total = row.sum(-1, keepdim=True)
    return row, torch.where(total > 0, column / total, 0.0)


def penalty(left: Tensor, right: Tensor, importance: Importance) -> Tensor:
    r""":math:`\sum_{ij} \Omega_{ij} (L R)_{ij}^2`.

    A factored importance never writes the product down:

    .. math:: \sum_{ij} r_i c_j (L R)_{ij}^2
        = \operatorname{tr}[(L^\top \operatorname{diag}(r) L)(R \operatorname{diag}(c) R^\top)],

    which takes k²(m + n) multiplications.

    Args:
        left: L, shape (..., m, k).
        right: R, shape (..., k, n).
        importance: Ω.

    Returns:
        Shape (...).

    Example:
        >>> left, right = torch.ones(2, 1), torch.tensor([[1.0, 2.0]])
        >>> penalty(left, right, torch.ones(2, 2)), penalty(left, right, (torch.ones(2), torch.ones(2)))
        (tensor(10.), tensor(10.))
    """
    if isinstance(importance, tuple):
        row, column = importance
        return (_gram(left.mT, row) * _gram(right, column)).sum((-2, -1))
    return (importance * (left @ right).square()).sum((-2, -1))


def penalty_gradients(left: Tensor, right: Tensor, importance: Importance) -> tuple[Tensor, Tensor]:
    r"""Its gradients: :math:`2(\Omega \odot L R) R^\top` with respect to L, :math:`2 L^\top (\Omega \odot L R)` to R.

    With a factored importance these are :math:`2 \operatorname{diag}(r) L (R \operatorname{diag}(c) R^\top)` and
    :math:`2 (L^\top \operatorname{diag}(r) L) R \operatorname{diag}(c)`.

    Args:
        left: L, shape (..., m, k).
        right: R, shape (..., k, n).
        importance: Ω.

    Returns:
        In the shapes of L and R.

    Example:
        >>> of_left, of_right = penalty_gradients(torch.ones(2, 1), torch.tensor([[1.0, 2.0]]), torch.ones(2, 2))
        >>> of_left.tolist(), of_right.tolist()
        ([[10.0], [10.0]], [[4.0, 8.0]])
    """
    if isinstance(importance, tuple):
        row, column = importance
        weighted = right * column.unsqueeze(-2)
        of_left = (left @ (weighted @ right.mT)) * row.unsqueeze(-1)
        return of_left.mul_(2.0), (_gram(left.mT, row) @ weighted).mul_(2.0)
    weighted = importance * (left @ right)
    return (weighted @ right.mT).mul_(2.0), (left.mT @ weighted).mul_(2.0)


def _gram(rows: Tensor, weights: Tensor) -> Tensor:
    """``rows @ diag(weights) @ rows.T``, shape (..., k, k)."""
    return (rows * weights.unsqueeze(-2)) @ rows.mT
