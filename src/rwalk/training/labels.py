"""Labels that cross-entropy cannot take are named, where torch's own error does not say whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rwalk.batches import TASK_LABELS
from rwalk.metrics.answers import is_class_target

__all__ = ["check_labels"]


def check_labels(labels: Any, scores: Any, *, ignored: int, batch: Any, experience: int) -> None:
    """Refuse labels that are not there, or that the model has no output for.

    Args:
        labels: Class numbers, shape (N, ...), of all samples of an experience or of a batch; None if it has none.
        scores: The model's for a batch, shape (B, C, ...).
        ignored: The label that does not count.
        batch: The batch, of which columns are named.
        experience: Its number in the stream.

    Raises:
        ValueError: There are no labels, or one is at least C.
    """
    if labels is None:
        names = [repr(name) for name in batch if name != TASK_LABELS] if isinstance(batch, Mapping) else []
        found = f"among the columns {', '.join(names)}" if names else "in its batches"
        raise ValueError(
            f"experience {experience} has no labels {found}: cross-entropy needs a column 'labels' or 'label'; rename "
            "the one that holds them, or give the strategy a criterion that needs none"
        )
    if not is_class_target(labels) or not isinstance(scores, Tensor) or scores.dim() < 2:
        return
    highest, outputs = int(labels.masked_fill(labels == ignored, 0).max()), scores.shape[1]
    if highest >= outputs:
        raise ValueError(
            f"experience {experience} has label {highest}, but the model has {outputs} outputs (labels 0 to "
            f"{outputs - 1}): relabel the data or widen the model"
        )
