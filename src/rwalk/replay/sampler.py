"""What a sampler is: an object that is shown candidates and chooses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from rwalk.replay.probe import Probe

__all__ = ["Candidates", "Sampler"]


@dataclass(frozen=True)
class Candidates:
    """The samples among which a sampler chooses: first those that are kept already, in their order, then new ones.

    Attributes:
        count: How many, N.
        data: Datasets of ``(x, y)`` or ``(x, y, task label)``, or of rows, that hold them, one after the other.
        label: Their class; None if they are of any class.
        keys: For samplers that are ``keyed``: a random number in [0, 1) for each, drawn when it arrived, float64.
        probe: Reads the model, if there is one.
    """

    count: int
    data: Sequence[Any]
    label: int | None = None
    keys: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    probe: Probe | None = None

    def features(self, layer: str | None = None, classifier: str | None = None) -> Tensor:
        """Their features, shape (N, D); see ``Probe.features``."""
        return self._model().features(self.data, layer, classifier)

    def logits(self) -> Tensor:
        """What the model gives for them, shape (N, C)."""
        return self._model().logits(self.data)

    def class_weight(self, classifier: str | None = None) -> Tensor:
        """Their class's row of the classification layer, shape (D,).

        Raises:
            ValueError: They are not of one class, or the layer has no such row.
        """
        if self.label is None:
            raise ValueError("candidates of any class have no class weight: choose by class")
        return self._model().class_weight(self.label, classifier)

    def _model(self) -> Probe:
        if self.probe is None:
            raise ValueError("this sampler looks at the model: give ExemplarMemory.update(..., model=model)")
        return self.probe


class Sampler(ABC):
    """Chooses exemplars. Subclass it to bring your own.

    Attributes:
        name: What a saved memory is recognised by.
        by_class: It is shown one class at a time; else all samples of the stream together.
        keyed: It needs ``Candidates.keys``.
        needs_model: It needs ``Candidates.probe``.

    Example:
        >>> class Newest(Sampler):
        ...     name = "newest"
        ...
        ...     def choose(self, candidates, budget):
        ...         return torch.arange(candidates.count).flip(0)[:budget]
        >>> Newest().choose(Candidates(5, []), 2)
        tensor([4, 3])
    """

    name: ClassVar[str]
    by_class: ClassVar[bool] = True
    keyed: ClassVar[bool] = False
    needs_model: ClassVar[bool] = False

    def refuse_without_classes(self) -> None:
        """Say that this sampler cannot choose among samples without class labels, if it chooses class by class.

        Raises:
            ValueError: It does.
        """
        if self.by_class:
            raise ValueError(
                f"sampler {self.name!r} chooses class by class, and there are no class labels (whole numbers, one for "
                "each sample): take sampler='reservoir', with a budget for all samples together"
            )

    def state_dict(self) -> dict[str, Any]:
        """What it has to remember from one choice to the next; nothing, unless a subclass says otherwise."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a ``state_dict``; a subclass that has one overrides both.

        Raises:
            ValueError: There is a state, and this sampler knows of none.
        """
        if state:
            raise ValueError(f"sampler {self.name!r} cannot go on from {sorted(state)}: it has no load_state_dict")

    @abstractmethod
    def choose(self, candidates: Candidates, budget: int) -> Tensor:
        """At most ``budget`` distinct positions, int64, the most important first: a smaller budget keeps those."""
