"""Exemplars' features by class, and scores that are linear in a sample's unit feature."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["by_class", "class_sums", "linear_scores", "unit"]


def unit(rows: Tensor) -> Tensor:
    """Rows of length 1 (0 stays); float64 stays, other dtypes become float32."""
    return normalize(rows if rows.dtype == torch.float64 else rows.float(), dim=1)


def by_class(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Class numbers, shape (K,), ascending, and each sample's place among them, shape (N,).

    Raises:
        ValueError: No samples, features that are no matrix, or not one label for each.
    """
    if features.dim() != 2 or labels.shape != features.shape[:1] or len(labels) == 0:
        raise ValueError(
            f"features of shape {tuple(features.shape)} with labels of shape {tuple(labels.shape)}: expected "
            "(N, D) and (N,), N ≥ 1"
        )
    classes, places = labels.to(features.device).unique(return_inverse=True)
    return classes, places


def class_sums(rows: Tensor, places: Tensor, classes: int) -> Tensor:
    """The sum of each class's rows, shape (K, D)."""
    return torch.zeros(classes, rows.shape[1], dtype=rows.dtype, device=rows.device).index_add_(0, places, rows)


def linear_scores(
    features: Tensor,
    classes: Tensor,
    weights: Tensor,
    outputs: int,
    missing: float,
    offsets: Tensor | None = None,
) -> Tensor:
    """Shape (B, ``outputs``): each class's weights (K, D) times the unit feature, and its offset, (K,).

    Raises:
        ValueError: As many features as there are weights are expected, and at least as many outputs as classes.
    """
    if features.dim() != 2 or features.shape[1] != weights.shape[1]:
        raise ValueError(
            f"features of shape {tuple(features.shape)}: expected (B, {weights.shape[1]}), as the exemplars have"
        )
    if outputs <= int(classes.max()):
        raise ValueError(f"outputs={outputs!r}: there are exemplars of class {int(classes.max())}")
    weights = weights.to(features.device)
    values = unit(features).to(weights.dtype) @ weights.T
    if offsets is not None:
        values += offsets.to(values.device)
    found = torch.full((len(features), outputs), missing, dtype=values.dtype, device=values.device)
    found[:, classes.to(values.device)] = values
    return found
