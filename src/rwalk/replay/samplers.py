"""The samplers by name: what each one has to see, and which selection function decides."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar

from torch import Tensor

from rwalk.replay import selection
from rwalk.replay.sampler import Candidates, Sampler

__all__ = [
    "SAMPLERS",
    "ClassBalancedReservoir",
    "Entropy",
    "MeanOfFeatures",
    "PlaneDistance",
    "Reservoir",
    "Uniform",
    "as_sampler",
]


@dataclass(frozen=True)
class Uniform(Sampler):
    """Every sample of a class is equally likely."""

    name: ClassVar[str] = "uniform"

    def choose(self, candidates: Candidates, budget: int) -> Tensor:
        """See ``selection.uniform``."""
        return selection.uniform(candidates.count, budget)


@dataclass(frozen=True)
class Reservoir(Sampler):
    """Every sample of the stream is equally likely, whatever its class; needs a total budget."""

    name: ClassVar[str] = "reservoir"
    by_class: ClassVar[bool] = False
    keyed: ClassVar[bool] = True

    def choose(self, candidates: Candidates, budget: int) -> Tensor:
        """See ``selection.reservoir``."""
        return selection.reservoir(candidates.keys, budget)


@dataclass(frozen=True)
class ClassBalancedReservoir(Reservoir):
    """A reservoir for each class: every sample that a class ever had is equally likely."""

    name: ClassVar[str] = "class-balanced-reservoir"
    by_class: ClassVar[bool] = True


@dataclass(frozen=True)
class PlaneDistance(Sampler):
    """Samples near the plane of their class are likelier.

    Args:
        layer: Whose output the features are; the input of the classification layer if None, as in the paper.
        classifier: The classification layer; the model's last ``nn.Linear`` if None.
    """

    layer: str | None = None
    classifier: str | None = None
    name: ClassVar[str] = "plane-distance"
    needs_model: ClassVar[bool] = True

    def choose(self, candidates: Candidates, budget: int) -> Tensor:
        """See ``selection.plane_distance``."""
        weight = candidates.class_weight(self.classifier)
        features = candidates.features(self.layer, self.classifier)
        return selection.plane_distance(features, weight, budget)


@dataclass(frozen=True)
class Entropy(Sampler):
    """Samples of which the model is unsure come first.

    Args:
        drawn: Draw in proportion to the entropy instead of taking the highest.
    """

    drawn: bool = False
    name: ClassVar[str] = "entropy"
    needs_model: ClassVar[bool] = True

    def choose(self, candidates: Candidates, budget: int) -> Tensor:
        """See ``selection.entropy``."""
        return selection.entropy(candidates.logits(), budget, drawn=self.drawn)


@dataclass(frozen=True)
class MeanOfFeatures(Sampler):
    """Samples whose mean feature is near that of all candidates (iCaRL's herding).

    Args:
        layer: Whose output the features are; the input of the classification layer if None.
        classifier: The classification layer; the model's last ``nn.Linear`` if None.
    """

    layer: str | None = None
    classifier: str | None = None
    name: ClassVar[str] = "mean-of-features"
    needs_model: ClassVar[bool] = True

    def choose(self, candidates: Candidates, budget: int) -> Tensor:
        """See ``selection.mean_of_features``."""
        return selection.mean_of_features(candidates.features(self.layer, self.classifier), budget)


SAMPLERS: dict[str, type[Sampler]] = {
    kind.name: kind for kind in (Uniform, Reservoir, ClassBalancedReservoir, PlaneDistance, Entropy, MeanOfFeatures)
}


def as_sampler(sampler: str | Sampler) -> Sampler:
    """The sampler of a name, with its usual settings; a sampler itself is returned as it is.

    Raises:
        ValueError: No sampler has this name.
        TypeError: Neither a name nor a sampler.

    Example:
        >>> as_sampler("entropy")
        Entropy(drawn=False)
        >>> as_sampler("reservior")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: unknown sampler 'reservior' (did you mean reservoir?): choose one of uniform, reservoir, ...
    """
    if isinstance(sampler, Sampler):
        return sampler
    if not isinstance(sampler, str):
        raise TypeError(f"sampler={sampler!r}: expected a name ({', '.join(SAMPLERS)}) or a Sampler object")
    if sampler not in SAMPLERS:
        likely = get_close_matches(sampler, SAMPLERS, n=1)
        hint = f" (did you mean {likely[0]}?)" if likely else ""
        raise ValueError(f"unknown sampler {sampler!r}{hint}: choose one of {', '.join(SAMPLERS)}")
    return SAMPLERS[sampler]()
