"""Evaluation by exemplars instead of the output layer."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from rwalk.batches import checked_scores, with_scores
from rwalk.models.masking import lowest
from rwalk.replay import Probe
from rwalk.replay.ranking import class_of
from rwalk.streams.collating import Collate, collate_fn_of
from rwalk.streams.mixing import as_given
from rwalk.training.events import BasePlugin
from rwalk.training.plugins.replay import ReplayPlugin, forward_on
from rwalk.training.rereading import given_collate_fn

__all__ = ["Judge", "JudgedByExemplars"]


class Judge(Protocol):
    """What tells classes apart by features."""

    def scores(self, features: Tensor, outputs: int, missing: float) -> Tensor:
        """Of features (B, D): shape (B, ``outputs``), ``missing`` for classes without exemplars."""
        ...


class JudgedByExemplars(BasePlugin):
    """In each evaluation ``mb_output`` becomes the scores of what ``judge_of`` makes of the exemplars' features.

    Nothing changes in training. Features are those of the model as it is now; accuracy is the judge's, and so is the
    measured loss. Classes that the model itself rules out (another task's head, not seen yet) stay ruled out, and so do
    those without exemplars. As long as nothing is remembered, the output layer decides. Batches go through the model
    twice, once for their features.

    Args:
        replay: Whose exemplars.
        layer: Whose output the features are; the input of the classification layer if None.
        classifier: The classification layer; the model's last ``nn.Linear`` if None.

    Raises:
        TypeError: ``replay`` is no ``ReplayPlugin``.
        ValueError: In an evaluation: no such layer, or exemplars without class labels.

    Attributes:
        judge: Of the evaluation that is under way or was last; None before the first, and without exemplars.
    """

    supports_distributed = True

    def __init__(self, replay: ReplayPlugin, layer: str | None = None, classifier: str | None = None) -> None:
        if not isinstance(replay, ReplayPlugin):
            raise TypeError(f"replay={replay!r}: expected the ReplayPlugin that holds the exemplars")
        self.replay, self.layer, self.classifier = replay, layer, classifier
        self.judge: Judge | None = None

    def judge_of(self, features: Tensor, labels: Tensor) -> Judge:
        """What judges, from the exemplars' features (N, D) and class labels (N,), int64."""
        raise NotImplementedError

    def before_eval(self, strategy: Any, **kwargs: Any) -> None:
        """Weights may have changed."""
        self.judge = None

    def before_eval_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Look at the exemplars, once an evaluation."""
        if self.judge is None:
            self.judge = self._measured(strategy, **kwargs)

    def after_eval_forward(self, strategy: Any, **kwargs: Any) -> None:
        """The judge's scores take the output's place."""
        if self.judge is None:
            return
        output = checked_scores(strategy.mb_output, type(self).__name__)
        features = self._features(strategy, [strategy.mbatch])
        worst = lowest(output.dtype)
        scores = self.judge.scores(features, output.shape[1], worst).to(output)
        strategy.mb_output = with_scores(strategy.mb_output, scores.masked_fill(output <= worst, worst))

    def _measured(self, strategy: Any, **kwargs: Any) -> Judge | None:
        samples = self.replay.memory.samples
        if not samples:
            return None
        labels = [class_of(sample) for sample in samples]
        if None in labels:
            raise ValueError(f"exemplar {labels.index(None)} has no class: exemplars that judge need class labels")
        dataset = strategy.experience.dataset
        function = given_collate_fn(strategy, kwargs) or collate_fn_of(dataset)
        batches = _batches(samples, dataset[0], Collate(function))
        return self.judge_of(self._features(strategy, batches), torch.tensor(labels))

    def _features(self, strategy: Any, batches: Any) -> Tensor:
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
