"""One output layer for all classes: masked to the classes seen, or growing with them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwalk.models.dynamic import DynamicModule
from rwalk.models.growing import grow
from rwalk.models.masking import lowest, mask_unseen

__all__ = ["IncrementalClassifier", "MaskedClassifier"]


class MaskedClassifier(DynamicModule):
    """A linear output layer that only ever chooses among the classes seen so far.

    The scores of other classes are the dtype's lowest number, in training and in evaluation: they have no part in
    cross-entropy, and their rows get a gradient of zero. Before the first experience nothing is masked.

    Args:
        in_features: Width of the features.
        n_classes: Number of outputs.
        masking: With False, an ordinary linear layer that remembers which classes it saw.

    Raises:
        ValueError: In training, an experience with a class that has no output.

    Attributes:
        classifier: The linear layer; row y belongs to class y.
        active_units: Which classes were seen, shape (n_classes,), bool; a buffer, so that checkpoints keep it.

    Example:
        >>> from types import SimpleNamespace
        >>> head = MaskedClassifier(4, n_classes=3)
        >>> head.adaptation(SimpleNamespace(classes_in_this_experience=(0, 2)))
        >>> bool((head(torch.randn(50, 4)).argmax(dim=1) == 1).any())
        False
    """

    active_units: Tensor

    def __init__(self, in_features: int, n_classes: int, *, masking: bool = True) -> None:
        super().__init__()
        if n_classes < 1:
            raise ValueError(f"{type(self).__name__} with {n_classes!r} outputs: expected at least 1")
        self.masking = masking
        self.classifier = nn.Linear(in_features, n_classes)
        self.register_buffer("active_units", torch.zeros(n_classes, dtype=torch.bool))

    def adaptation(self, experience: Any) -> None:
        """In train mode: the experience's classes count as seen from now on."""
        if self.training:
            classes = list(experience.classes_in_this_experience)
            self._make_room(max(classes) + 1)
            self.active_units[classes] = True

    def forward(self, x: Tensor) -> Tensor:
        """Scores of classes, shape (B, C), of features (B, ``in_features``)."""
        scores: Tensor = self.classifier(x)
        return mask_unseen(scores, self.active_units) if self.masking else scores

    def _make_room(self, outputs: int) -> None:
        has = self.classifier.out_features
        if outputs > has:
            raise ValueError(
                f"the experience has class {outputs - 1}, but the output layer has {has} outputs (classes 0 to "
                f"{has - 1}): build it with n_classes={outputs}, or take a growing one"
            )


class IncrementalClassifier(MaskedClassifier):
    """A linear output layer that gets a row for every class up to the largest that it has seen.

    Rows that are there keep their values; new ones are drawn as ``nn.Linear`` draws them. In evaluation it does not
    grow: classes without a row have the dtype's lowest number as their score. A state dict with more rows is loaded by
    growing first.

    Args:
        in_features: Width of the features.
        initial_out_features: Rows to begin with.
        masking: Classes below the largest that were not seen yet cannot be chosen.

    Raises:
        RWalkError: When it has to grow, its parameters are sharded over processes.

    Attributes:
        classifier: The linear layer; row y belongs to class y.
        active_units: Which classes were seen, one for each row, bool.

    Example:
        >>> from types import SimpleNamespace
        >>> head = IncrementalClassifier(4)
        >>> head.adaptation(SimpleNamespace(classes_in_this_experience=(1, 4)))
        >>> head(torch.ones(1, 4)).shape, head.active_units.tolist()
        (torch.Size([1, 5]), [False, True, False, False, True])
    """

    def __init__(self, in_features: int, initial_out_features: int = 2, *, masking: bool = True) -> None:
        super().__init__(in_features, initial_out_features, masking=masking)
        self._evaluated = 0

    def adaptation(self, experience: Any) -> None:
        """In train mode: grow, and count the classes as seen. In eval mode: have an output for each of them."""
        super().adaptation(experience)
        if not self.training:
            self._evaluated = max(experience.classes_in_this_experience) + 1

    def forward(self, x: Tensor) -> Tensor:
        """Scores of classes, shape (B, C), of features (B, ``in_features``)."""
        scores = super().forward(x)
        missing = self._evaluated - scores.shape[1]
        if self.training or missing <= 0:
            return scores
        return F.pad(scores, (0, missing), value=lowest(scores.dtype))

    def _make_room(self, outputs: int) -> None:
        missing = outputs - self.classifier.out_features
        if missing > 0:
            grow(self.classifier, outputs)
            self.active_units = F.pad(self.active_units, (0, missing))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}classifier.weight")
        if saved is not None:
            with torch.random.fork_rng([]):
                self._make_room(len(saved))
        super()._load_from_state_dict(state_dict, prefix, *args)
