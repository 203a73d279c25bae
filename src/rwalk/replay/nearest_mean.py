"""Classes by the nearest mean of their exemplars' features."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rwalk.replay.linear import by_class, class_sums, linear_scores, unit

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
        >>> import torch
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
        classes, places = by_class(features, labels)
        return cls(classes, unit(class_sums(unit(features), places, len(classes))))

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
        return linear_scores(features, self.classes, self.means, outputs, missing)
