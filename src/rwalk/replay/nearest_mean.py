"""Classes by the nearest mean of their exemplars' features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["ClassMeans"]


@dataclass(frozen=True)
class ClassMeans:
    r"""The direction in which each class's exemplars lie in feature space.

    An output layer that is trained on few old and many new samples leans to the new classes. The mean of a class's
    features under the model as it is now has no such bias, and follows when features move.

    Attributes:
        classes: Class numbers y, shape (K,), int64, ascending.
        means: :math:`\mu_y`, shape (K, D), rows of length 1 (0 where features cancel or are 0).

    Example:
        >>> means = ClassMeans.of(torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 9.0]]), torch.tensor([0, 2, 2]))
        >>> means.scores(torch.tensor([[0.0, 2.0]]), 3, missing=-1.0)
        tensor([[ 0., -1.,  1.]])

    References:
        Rebuffi et al., *iCaRL: Incremental Classifier and Representation Learning*, CVPR 2017, Algorithm 1.
    """

    classes: Tensor
    means: Tensor

    @classmethod
    def of(cls, features: Tensor, labels: Tensor) -> ClassMeans:
        r"""Means of unit features, :math:`\mu_y \propto \sum_{i: y_i = y} \varphi(x_i) / \|\varphi(x_i)\|`.

        Args:
            features: :math:`\varphi(x)`, shape (N, D), of any floating dtype; float64 stays, the others become float32.
            labels: y, shape (N,), whole numbers.

        Raises:
            ValueError: No samples, features that are no matrix, or not one label for each.
        """
        if features.dim() != 2 or labels.shape != features.shape[:1] or len(labels) == 0:
            raise ValueError(
                f"features of shape {tuple(features.shape)} with labels of shape {tuple(labels.shape)}: expected "
                "(N, D) and (N,), N ≥ 1"
            )
        classes, places = labels.to(features.device).unique(return_inverse=True)
        unit = _unit(features)
        sums = torch.zeros(len(classes), unit.shape[1], dtype=unit.dtype, device=unit.device)
        return cls(classes, _unit(sums.index_add_(0, places, unit)))

    def scores(self, features: Tensor, outputs: int, missing: float) -> Tensor:
        r"""How near each class's mean is: the cosine :math:`\mu_y \cdot \varphi(x) / \|\varphi(x)\|`, in [−1, 1].

        For means of length 1 the largest is the smallest distance :math:`\|\varphi(x) / \|\varphi(x)\| - \mu_y\|`.

        Args:
            features: :math:`\varphi(x)`, shape (B, D).
            outputs: How many classes there are in all, C.
            missing: The score of classes without exemplars.

        Returns:
            Shape (B, C), on the features' device, in the means' dtype.

        Raises:
            ValueError: As many features as the means have are expected, and at least as many outputs as classes.
        """
        if features.dim() != 2 or features.shape[1] != self.means.shape[1]:
            raise ValueError(
                f"features of shape {tuple(features.shape)}: expected (B, {self.means.shape[1]}), as the exemplars have"
            )
        if outputs <= int(self.classes.max()):
            raise ValueError(f"outputs={outputs!r}: there are exemplars of class {int(self.classes.max())}")
        means = self.means.to(features.device)
        found = torch.full((len(features), outputs), missing, dtype=means.dtype, device=means.device)
        found[:, self.classes.to(means.device)] = _unit(features).to(means.dtype) @ means.T
        return found


def _unit(rows: Tensor) -> Tensor:
    wide = rows if rows.dtype == torch.float64 else rows.float()
    return normalize(wide, dim=1)
