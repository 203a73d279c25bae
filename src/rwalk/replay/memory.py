"""Exemplars of past classes, within a budget."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from rwalk.replay.selection import uniform

__all__ = ["ExemplarMemory"]

Sample = tuple[Any, Any, Any]


class ExemplarMemory:
    """Keeps a few samples of every class seen.

    Args:
        per_class: Exemplars of each class. Give this or ``total``.
        total: Exemplars altogether, shared out evenly over the classes seen; classes give up exemplars as others join.

    Raises:
        ValueError: Both budgets given or neither, or one below 1.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> memory = ExemplarMemory(per_class=2)
        >>> labels = torch.tensor([7, 7, 7, 9])
        >>> memory.update(TensorDataset(torch.rand(4, 3), labels), labels)
        >>> memory.counts
        {7: 2, 9: 1}
    """

    def __init__(self, *, per_class: int | None = None, total: int | None = None) -> None:
        if (per_class is None) == (total is None):
            raise ValueError(f"per_class={per_class!r}, total={total!r}: expected exactly one of the two budgets")
        name, budget = ("per_class", per_class) if per_class is not None else ("total", total)
        if not isinstance(budget, int) or budget < 1:
            raise ValueError(f"{name}={budget!r}: expected at least 1 exemplar")
        self.per_class, self.total = per_class, total
        self._samples: dict[int, list[Sample]] = {}

    def update(self, dataset: Dataset[Any], labels: Tensor, task_label: int = 0) -> None:
        """Take exemplars of the classes in ``dataset`` and bring every class within its budget.

        A class that is kept already and comes again is drawn anew from old exemplars and new samples, each of which is
        equally likely.

        Args:
            dataset: Samples ``(x, y)`` or ``(x, y, task label)``.
            labels: Their class labels, shape (N,).
            task_label: For samples that carry none.
        """
        for label in labels.unique().tolist():
            self._samples.setdefault(label, [])
        for label, kept in self._samples.items():
            members = (labels == label).nonzero().flatten().tolist()
            budget = self.budget(label)
            chosen: list[Sample] = []
            for position in (
                uniform(len(kept) + len(members), budget).tolist() if members else range(len(kept[:budget]))
            ):
                if position < len(kept):
                    chosen.append(kept[position])
                else:
                    x, y, *rest = dataset[members[position - len(kept)]]
                    chosen.append((x, y, rest[0] if rest else task_label))
            self._samples[label] = chosen

    def budget(self, label: int) -> int:
        """How many exemplars a class may have now; the first classes seen get what does not divide evenly."""
        if self.per_class is not None:
            return self.per_class
        share, rest = divmod(self.total or 0, len(self._samples))
        return share + (list(self._samples).index(label) < rest)

    @property
    def counts(self) -> dict[int, int]:
        """Exemplars kept, by class."""
        return {label: len(samples) for label, samples in self._samples.items()}

    @property
    def samples(self) -> list[Sample]:
        """All exemplars as ``(x, y, task label)``."""
        return [sample for samples in self._samples.values() for sample in samples]

    def __len__(self) -> int:
        """Exemplars altogether."""
        return sum(self.counts.values())

    def state_dict(self) -> dict[str, Any]:
        """Budgets and exemplars."""
        return {
            "per_class": self.per_class,
            "total": self.total,
            "samples": {k: list(v) for k, v in self._samples.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a ``state_dict``.

        Raises:
            ValueError: It was made under another budget.
        """
        if (state["per_class"], state["total"]) != (self.per_class, self.total):
            raise ValueError(
                f"the saved memory has per_class={state['per_class']!r}, total={state['total']!r}; "
                f"this one has per_class={self.per_class!r}, total={self.total!r}"
            )
        self._samples = {int(label): list(samples) for label, samples in state["samples"].items()}
