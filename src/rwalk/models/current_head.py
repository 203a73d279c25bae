"""One output layer, trained among the classes at hand only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rwalk.models.masking import mask_unseen
from rwalk.models.single_head import MaskedClassifier

__all__ = ["CurrentClassifier"]


class CurrentClassifier(MaskedClassifier):
    """A linear output layer that learns to choose among an experience's own classes, and is tested on all seen.

    In training, scores of all other classes are the dtype's lowest number, so that new data cannot push the outputs of
    old classes down: those rows get a gradient of zero. In evaluation every class seen so far can win. Without old data
    this is what a single head can learn from an experience. Replayed samples of other classes cannot be learned by it:
    take ``MaskedClassifier`` for those, and for ``LwFPlugin``, which holds the scores that this masks.

    Args:
        in_features: Width of the features.
        n_classes: Number of outputs.

    Raises:
        ValueError: In training, an experience with a class that has no output.

    Attributes:
        current_units: The classes of the experience learned last, shape (n_classes,), bool; a buffer.

    Example:
        >>> from types import SimpleNamespace
        >>> head, x = CurrentClassifier(4, n_classes=3), torch.randn(50, 4)
        >>> for classes in [(0, 1), (2,)]:
        ...     head.adaptation(SimpleNamespace(classes_in_this_experience=classes))
        >>> head(x).argmax(dim=1).unique().tolist(), bool((head.eval()(x).argmax(dim=1) < 2).any())
        ([2], True)

    References:
        The authors' code of Chaudhry et al. 2018 trains single-head models without exemplars like this.
    """

    current_units: Tensor

    def __init__(self, in_features: int, n_classes: int) -> None:
        super().__init__(in_features, n_classes)
        self.register_buffer("current_units", torch.zeros(n_classes, dtype=torch.bool))

    def adaptation(self, experience: Any) -> None:
        """In train mode: the experience's classes are those at hand."""
        super().adaptation(experience)
        if self.training:
            self.current_units.zero_()
            self.current_units[list(experience.classes_in_this_experience)] = True

    def forward(self, x: Tensor) -> Tensor:
        """Scores of classes, shape (B, ``n_classes``), of features (B, ``in_features``)."""
        scores = super().forward(x)
        return mask_unseen(scores, self.current_units) if self.training else scores
