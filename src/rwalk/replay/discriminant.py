"""Classes by a linear discriminant of their exemplars' features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rwalk.replay.linear import by_class, class_sums, linear_scores, unit

__all__ = ["SHRINKAGE", "LinearDiscriminant", "check_positive"]

#: Chosen, as the power 1/2, on held-out images of CIFAR-100 (25 exemplars of each of 40 and of 100 classes), where half
#: and twice as much lose up to 0.6 points.
SHRINKAGE = 10.0
_USUAL = {"shrinkage": "10", "power": "0.5"}


@dataclass(frozen=True)
class LinearDiscriminant:
    r"""Gaussian classes that share a covariance: each is told by its mean, less where all vary within classes.

    With few exemplars the covariance of thousands of features is not to be had, and exemplars that were trained on lie
    closer together than new samples do. So it is shrunk to a multiple of the identity,

    .. math:: \Sigma = \frac{1}{N-K} \sum_i (u_i - \mu_{y_i})(u_i - \mu_{y_i})^\top + \gamma \bar\sigma^2 I,
              \qquad \bar\sigma^2 = \text{mean variance of a feature within classes,}

    of :math:`u = v/\|v\|`, where v is the signed square root of each feature, :math:`v = \mathrm{sign}(\varphi)
    |\varphi|^{1/2}`: what comes out of a ReLU has a long tail, which is no Gaussian's. Class y scores
    :math:`\gamma \bar\sigma^2 (\mu_y^\top \Sigma^{-1} u - \tfrac12 \mu_y^\top \Sigma^{-1} \mu_y)`; the factor changes
    no order, and leaves :math:`\mu_y^\top u - \tfrac12 \|\mu_y\|^2`, the nearest mean, as γ grows or where nothing
    varies within classes (one exemplar of each).

    Attributes:
        classes: Class numbers y, shape (K,), int64, ascending.
        weights: :math:`\gamma \bar\sigma^2 \Sigma^{-1} \mu_y`, shape (K, D).
        offsets: :math:`-\tfrac12 \mu_y^\top` of them, shape (K,).
        power: To which features are raised.

    Example:
        >>> features = torch.tensor([[9.0, 1.0], [9.0, -1.0], [-9.0, 1.0], [-9.0, -1.0]])
        >>> found = LinearDiscriminant.of(features, torch.tensor([0, 0, 2, 2]))
        >>> found.scores(torch.tensor([[0.1, 5.0]]), 3, missing=-9.0).argmax().item()
        0

    References:
        Hayes and Kanan, *Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis*, CVPR Workshops
        2020. Goswami et al., *FeCAM*, NeurIPS 2023, who shrink the diagonal so (γ₁) and take the root (Tukey's ladder
        of powers), with a covariance for each class.
    """

    classes: Tensor
    weights: Tensor
    offsets: Tensor
    power: float

    @classmethod
    def of(
        cls, features: Tensor, labels: Tensor, shrinkage: float = SHRINKAGE, power: float = 0.5
    ) -> LinearDiscriminant:
        r"""The discriminant of some samples.

        Args:
            features: :math:`\varphi(x)`, shape (N, D), of any floating dtype; float64 stays, the others become float32.
            labels: y, shape (N,), whole numbers.
            shrinkage: γ, positive: how many times the mean variance is added to each feature's.
            power: Instead of 1/2; 1 leaves features as they are.

        Raises:
            ValueError: No samples, features that are no matrix, not one label for each, or a shrinkage or power that is
                not positive, or too small a shrinkage.

        Note:
            Solves a system of min(N, D) equations, in float64 on the CPU.
        """
        check_positive(shrinkage=shrinkage, power=power)
        classes, places = by_class(features, labels)
        rows = unit(_to_power(features, power))
        means = class_sums(rows, places, len(classes)) / places.bincount().unsqueeze(1)
        weights = _solved(rows - means[places], shrinkage, means)
        return cls(classes, weights, -0.5 * (weights * means).sum(1), power)

    def scores(self, features: Tensor, outputs: int, missing: float) -> Tensor:
        r"""Scores of classes.

        Args:
            features: :math:`\varphi(x)`, shape (B, D).
            outputs: How many classes there are in all, C.
            missing: The score of classes without exemplars.

        Returns:
            Shape (B, C), on the features' device, in the weights' dtype.

        Raises:
            ValueError: As many features as the exemplars have are expected, and at least as many outputs as classes.
        """
        features = _to_power(features, self.power)
        return linear_scores(features, self.classes, self.weights, outputs, missing, self.offsets)


def check_positive(**values: float) -> None:
    """Make sure that each is a positive number.

    Raises:
        ValueError: One is not.
    """
    for name, value in values.items():
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise ValueError(f"{name}={value!r}: expected a positive number; {_USUAL[name]} is usual")


def _to_power(features: Tensor, power: float) -> Tensor:
    wide = features if features.dtype == torch.float64 else features.float()
    return wide if power == 1.0 else wide.sign() * wide.abs() ** power


def _solved(residuals: Tensor, shrinkage: float, means: Tensor) -> Tensor:
    """The means times the inverse of I + RᵀR / ridge, in the smaller of two equal forms; R has rank below N."""
    samples, width = residuals.shape
    rounding = samples * (8 * torch.finfo(residuals.dtype).eps) ** 2  # of rows of length 1
    rows, centres = (part.to("cpu", torch.float64) for part in (residuals, means))
    spread = rows.square().sum()
    if spread <= rounding:
        return means
    ridge = shrinkage * spread / width  # (N − K) γ σ̄²
    scatter = rows @ rows.T if samples <= width else rows.T @ rows
    factor, failed = torch.linalg.cholesky_ex(scatter + ridge * torch.eye(len(scatter), dtype=torch.float64))
    if failed:
        raise ValueError(
            f"shrinkage={shrinkage!r}: too little to invert the covariance; {_USUAL['shrinkage']} is usual"
        )
    if samples <= width:
        return (centres - torch.cholesky_solve(rows @ centres.T, factor).T @ rows).to(means)
    return (ridge * torch.cholesky_solve(centres.T, factor).T).to(means)
