"""A spec in Avalanche's own terms: its output layers with given weights, and its plugins. Imports Avalanche."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from avalanche.models import IncrementalClassifier, MultiHeadClassifier, MultiTaskModule
from avalanche.training.plugins import ReplayPlugin, RWalkPlugin, SupervisedPlugin
from avalanche.training.storage_policy import ClassBalancedBuffer, HerdingSelectionStrategy, ParametricBuffer
from torch import Tensor, nn

from benchmarks.beside_avalanche.remembered import asked_for
from rwalk.experiments.spec import RunSpec
from rwalk.replay.selection import mean_of_features
from rwalk.streams import Benchmark

__all__ = ["their_network", "their_plugins"]


class _TaskNetwork(MultiTaskModule):
    """Features, and an output layer that takes task labels."""

    def __init__(self, features: nn.Module, classifier: MultiHeadClassifier) -> None:
        super().__init__()
        self.features, self.classifier = features, classifier

    def forward(self, x: Tensor, task_labels: Tensor) -> Tensor:
        """Scores of classes."""
        return self.classifier(self.features(x), task_labels)


class _Herding(HerdingSelectionStrategy):
    """Avalanche's herding, which ranks a whole class (minutes, for one of MNIST's), stopped at the budget."""

    def __init__(self, model: nn.Module, layer_name: str, budget: int) -> None:
        super().__init__(model, layer_name)
        self.budget = budget

    def make_sorted_indices_from_features(self, features: Tensor) -> list[int]:
        """The first ones of its ranking."""
        return mean_of_features(features, self.budget).tolist()


class _TellsReplay(SupervisedPlugin):
    """Tells Avalanche's replay what changes from experience to experience; stands before it.

    Args:
        replay: The replay.
        numbers: Remembered samples in a batch of each experience after the first.
        per_class: Exemplars of each class, where the memory only knows a total.
    """

    def __init__(self, replay: ReplayPlugin, numbers: Sequence[int], per_class: int | None) -> None:
        super().__init__()
        self.replay, self.numbers, self.per_class, self.seen = replay, numbers, per_class, set[int]()

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ARG002 - the hook's signature
        """How many a batch is to hold; before the first experience there is nothing to remember."""
        index = strategy.experience.current_experience
        if index:
            self.replay.batch_size_mem = self.numbers[index - 1]

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:  # noqa: ARG002 - the hook's signature
        """How many to keep."""
        self.seen.update(strategy.experience.classes_in_this_experience)
        if self.per_class:
            self.replay.storage_policy.max_size = self.per_class * len(self.seen)


def their_network(network: Any, heads: str, n_classes: int, train_stream: Iterable[Any]) -> nn.Module:
    """The same network with Avalanche's output layer, of the same weights.

    Args:
        network: Of ``build_model``; its heads are all there.
        heads: Their kind, as in a spec.
        n_classes: Number of classes.
        train_stream: Avalanche's; a network of several heads is adapted to all of it, because its ``RWalkPlugin`` stops
            at a head that arrives later.

    Raises:
        ValueError: Output layers that grow: Avalanche's plugin anchors their new rows at 0.
    """
    if heads == "single":
        return network
    if heads == "masked":
        own = network.classifier.classifier
        head = IncrementalClassifier(own.in_features, n_classes)
        _copy(own, head.classifier)
        return nn.Sequential(OrderedDict(features=network.features, classifier=head))
    if heads == "multi":
        own = network.classifier
        # as wide as all classes: it fills up narrower heads with scores of 0, which count in cross-entropy
        several = MultiHeadClassifier(own.in_features, initial_out_features=n_classes)
        for experience in train_stream:
            several.adaptation(experience)
        for task, head in own.classifiers.items():
            _copy(head, several.classifiers[task].classifier, head.classes)
        return _TaskNetwork(network.features, several)
    raise ValueError(f"heads={heads!r}: Avalanche's RWalkPlugin takes 'single', 'masked' or 'multi'")


def their_plugins(spec: RunSpec, data: Benchmark, network: nn.Module) -> list[Any]:
    """Avalanche's Riemannian Walk and, with exemplars, its replay.

    Args:
        spec: Its sampler is one that Avalanche has; see ``same_sampler``.
        data: Its streams.
        network: Of ``their_network``; features for herding come from it.
    """
    config, classes = spec.rwalk_config, data.n_classes
    plugins: list[Any] = [RWalkPlugin(config.ewc_lambda, config.ewc_alpha, config.delta_t)]
    budget = spec.exemplars * classes or spec.exemplars_total
    if not budget:
        return plugins
    herding, fixed = spec.sampler == "mean-of-features", bool(spec.exemplars)
    if herding:
        ranking = _Herding(network, spec.sampler_layer or "features", budget)
        memory = ParametricBuffer(budget, groupby="class", selection_strategy=ranking)
    else:
        memory = ClassBalancedBuffer(budget, adaptive_size=not fixed, total_num_classes=classes if fixed else None)
    replay = ReplayPlugin(budget, storage_policy=memory)
    tells = _TellsReplay(replay, asked_for(spec, data), spec.exemplars if herding and fixed else None)
    return [*plugins, tells, replay]


@torch.no_grad()
def _copy(source: nn.Linear, target: nn.Linear, rows: Tensor | slice = slice(None)) -> None:
    target.weight[rows] = source.weight
    target.bias[rows] = source.bias
