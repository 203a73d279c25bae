"""Evaluation by the nearest mean of exemplars instead of the output layer."""

from __future__ import annotations

from torch import Tensor

from rwalk.replay import ClassMeans
from rwalk.training.plugins.judging import JudgedByExemplars

__all__ = ["NearestMeanPlugin"]


class NearestMeanPlugin(JudgedByExemplars):
    """When evaluating, a sample belongs to the class whose exemplars' mean feature is nearest.

    In each evaluation ``mb_output`` becomes the cosines of ``ClassMeans.scores``; see ``JudgedByExemplars`` for
    arguments, errors and what stays as it was.

    Example:
        >>> from rwalk.training import ReplayPlugin
        >>> replay = ReplayPlugin(per_class=10, sampler="mean-of-features")
        >>> NearestMeanPlugin(replay).judge is None
        True

    References:
        Rebuffi et al., *iCaRL: Incremental Classifier and Representation Learning*, CVPR 2017.
    """

    def judge_of(self, features: Tensor, labels: Tensor) -> ClassMeans:
        """The mean feature of each class."""
        return ClassMeans.of(features, labels)
