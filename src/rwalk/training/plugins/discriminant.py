"""Evaluation by a linear discriminant of exemplars instead of the output layer."""

from __future__ import annotations

from torch import Tensor

from rwalk.replay import LinearDiscriminant
from rwalk.replay.discriminant import SHRINKAGE, check_positive
from rwalk.training.plugins.judging import JudgedByExemplars
from rwalk.training.plugins.replay import ReplayPlugin

__all__ = ["DiscriminantPlugin"]


class DiscriminantPlugin(JudgedByExemplars):
    """When evaluating, a sample belongs to the class that a linear discriminant of the exemplars' features gives it.

    In each evaluation ``mb_output`` becomes the scores of ``LinearDiscriminant``; see ``JudgedByExemplars`` for the
    other arguments, errors and what stays as it was. It differs from the nearest mean in that directions in which
    features vary within classes count less.

    Args:
        replay: Whose exemplars.
        layer: Whose output the features are; the input of the classification layer if None.
        classifier: The classification layer; the model's last ``nn.Linear`` if None.
        shrinkage: See ``LinearDiscriminant.of``.
        power: See ``LinearDiscriminant.of``.

    Raises:
        TypeError: ``replay`` is no ``ReplayPlugin``.
        ValueError: A shrinkage or power that is no positive number.

    Example:
        >>> from rwalk.training import ReplayPlugin
        >>> DiscriminantPlugin(ReplayPlugin(per_class=10, sampler="mean-of-features")).shrinkage
        10.0
    """

    def __init__(
        self,
        replay: ReplayPlugin,
        layer: str | None = None,
        classifier: str | None = None,
        *,
        shrinkage: float = SHRINKAGE,
        power: float = 0.5,
    ) -> None:
        super().__init__(replay, layer, classifier)
        check_positive(shrinkage=shrinkage, power=power)
        self.shrinkage, self.power = shrinkage, power

    def judge_of(self, features: Tensor, labels: Tensor) -> LinearDiscriminant:
        """The discriminant of all classes that have exemplars."""
        return LinearDiscriminant.of(features, labels, self.shrinkage, self.power)
