"""Evaluation by the nearest mean of exemplars instead of the output layer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from rwalk.batches import scores_of
from rwalk.models.masking import lowest
from rwalk.replay import ClassMeans, Probe
from rwalk.replay.ranking import class_of
from rwalk.streams.collating import Collate, collate_fn_of
from rwalk.streams.mixing import as_given
from rwalk.training.events import BasePlugin
from rwalk.training.plugins.replay import ReplayPlugin, forward_on

__all__ = ["NearestMeanPlugin"]


class NearestMeanPlugin(BasePlugin):
    r"""When evaluating, a sample belongs to the class whose exemplars' mean feature is nearest.

    Nothing changes in training. In each evaluation ``mb_output`` becomes the cosines of ``ClassMeans.scores``, of the
    exemplars' features as the model sees them now; so accuracy is that of the nearest mean, and the measured loss is
    that of the cosines. Classes that the model itself rules out (another task's head, not seen yet) stay ruled out, and
    so do those without exemplars. As long as nothing is remembered, the output layer decides. Batches go through the
    model twice, once for their features.

    Args:
        replay: Whose exemplars.
        layer: Whose output the features are; the input of the classification layer if None.
        classifier: The classification layer; the model's last ``nn.Linear`` if None.

    Raises:
        TypeError: ``replay`` is no ``ReplayPlugin``.
        ValueError: In an evaluation: no such layer, or exemplars without class labels.

    Attributes:
        means: Of the evaluation that is under way or was last; None before the first, and without exemplars.

    Example:
        >>> replay = ReplayPlugin(per_class=10, sampler="mean-of-features")
        >>> NearestMeanPlugin(replay).means is None
        True

    References:
        Rebuffi et al., *iCaRL: Incremental Classifier and Representation Learning*, CVPR 2017.
    """

    supports_distributed = True

    def __init__(self, replay: ReplayPlugin, layer: str | None = None, classifier: str | None = None) -> None:
        if not isinstance(replay, ReplayPlugin):
            raise TypeError(f"replay={replay!r}: expected the ReplayPlugin that holds the exemplars")
        self.replay, self.layer, self.classifier = replay, layer, classifier
        self.means: ClassMeans | None = None

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Weights may have changed."""
        self.means = None

    def before_eval_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Look at the exemplars, once an evaluation."""
        if self.means is None:
            self.means = self._measured(strategy, **kwargs)

    def after_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
        """Cosines take the output's place."""
        if self.means is None:
            return
        output = scores_of(strategy.mb_output)
        features = self._features(strategy, [strategy.mbatch])
        worst = lowest(output.dtype)
        scores = self.means.scores(features, output.shape[1], worst).to(output)
        strategy.mb_output = scores.masked_fill(output <= worst, worst)

    def _measured(self, strategy: Any, **kwargs: Any) -> ClassMeans | None:
        samples = self.replay.memory.samples
        if not samples:
            return None
        labels = [class_of(sample) for sample in samples]
        if None in labels:
            raise ValueError(f"exemplar {labels.index(None)} has no class: the nearest mean needs class labels")
        dataset = strategy.experience.dataset
        function = kwargs.get("collate_fn") or getattr(strategy, "collate_fn", None) or collate_fn_of(dataset)
        batches = _batches(samples, dataset[0], Collate(function))
        return ClassMeans.of(self._features(strategy, batches), torch.tensor(labels))

    def _features(self, strategy: Any, batches: Any) -> torch.Tensor:
        probe = Probe(strategy.model, forward=partial(forward_on, strategy), loader=_as_they_are)
        return probe.features([batches], self.layer, self.classifier)


def _as_they_are(batches: Any, size: int) -> Any:  # noqa: ARG001 - in place of a data loader
    return batches


def _batches(samples: Any, like: Any, collate: Collate, size: int = 256) -> Iterator[Any]:
    """Exemplars in the form of another sample, as batches; each has its own task label."""
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        tasks = torch.tensor([int(task) for *_, task in part], dtype=torch.int64)
        yield collate([as_given(sample, like) for sample in part], tasks)
