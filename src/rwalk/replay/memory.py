"""Exemplars of past classes, within a budget."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from rwalk.replay.probe import Probe
from rwalk.replay.ranking import Ranking, Sample
from rwalk.replay.sampler import Sampler
from rwalk.replay.samplers import as_sampler

__all__ = ["ExemplarMemory"]

log = logging.getLogger(__name__)


class ExemplarMemory:
    """Keeps a few samples of every class seen.

    Args:
        per_class: Exemplars of each class. Give this or ``total``.
        total: Exemplars altogether, shared out evenly over the classes seen; classes give up exemplars as others join,
            the least important ones first. With ``sampler="reservoir"`` nothing is shared out.
        sampler: Which samples are kept: one of ``SAMPLERS`` by name, or a ``Sampler``.

    Raises:
        ValueError: Both budgets given or neither, one below 1, no such sampler, or a reservoir over all classes with
            a budget for each.
        TypeError: ``sampler`` is neither a name nor a ``Sampler``.

    Attributes:
        sampler: The sampler.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> memory = ExemplarMemory(per_class=2)
        >>> labels = torch.tensor([7, 7, 7, 9, 9])
        >>> memory.update(TensorDataset(torch.rand(5, 3), labels), labels)
        >>> memory.counts
        {7: 2, 9: 2}
    """

    def __init__(
        self, *, per_class: int | None = None, total: int | None = None, sampler: str | Sampler = "uniform"
    ) -> None:
        if (per_class is None) == (total is None):
            raise ValueError(f"per_class={per_class!r}, total={total!r}: expected exactly one of the two budgets")
        name, budget = ("per_class", per_class) if per_class is not None else ("total", total)
        if not isinstance(budget, int) or budget < 1:
            raise ValueError(f"{name}={budget!r}: expected at least 1 exemplar")
        self.per_class, self.total, self.sampler = per_class, total, as_sampler(sampler)
        if per_class is not None and not self.sampler.by_class:
            raise ValueError(
                f"per_class={per_class!r}: {self.sampler.name!r} chooses among all classes together; give total=, or "
                "take 'class-balanced-reservoir'"
            )
        self._rankings: dict[int | None, Ranking] = {}  # by class; under None where classes are not told apart
        self._small: set[int] = set()

    def update(
        self, dataset: Dataset[Any], labels: Tensor, task_label: int = 0, *, model: nn.Module | Probe | None = None
    ) -> None:
        """Take exemplars of the classes in ``dataset`` and bring every class within its budget.

        A class that is kept already and comes again is ranked anew, old exemplars and new samples together; with
        ``uniform`` each of these is equally likely, with the reservoirs each sample that ever came. A class that does
        not come again keeps its ranking, also when the model has changed since.

        Args:
            dataset: Samples ``(x, y)`` or ``(x, y, task label)``.
            labels: Their class labels, shape (N,).
            task_label: For samples that carry none.
            model: For samplers that look at one; a ``Probe`` says how. It is left as it was.

        Raises:
            ValueError: The sampler needs a model, the model does not fit it (see ``Probe``), or its features are not
                finite. The memory is then as it was.
            TypeError: A layer gives something else than a tensor.
        """
        if self.sampler.needs_model and model is None:
            raise ValueError(f"sampler {self.sampler.name!r} looks at the model: give update(..., model=model)")
        probe = Probe(model) if isinstance(model, nn.Module) else model
        arrived = labels.unique().tolist() if self.sampler.by_class else [None]
        groups = list(dict.fromkeys([*self._rankings, *arrived]))
        rankings: dict[int | None, Ranking] = {}
        for place, group in enumerate(groups):
            ranking, budget = self._rankings.get(group, Ranking()), self._share(place, len(groups))
            members = [*range(len(labels))] if group is None else (labels == group).nonzero().flatten().tolist()
            if members:
                ranking = ranking.joined_by(
                    dataset, members, budget, self.sampler, label=group, task_label=task_label, probe=probe
                )
            rankings[group] = ranking.first(budget)
        self._rankings = rankings
        self._tell_of_small_classes()

    def budget(self, label: int) -> int:
        """How many exemplars a class may have now; the first classes seen get what does not divide evenly."""
        shared = self.total is not None and self.sampler.by_class
        return self._share(list(self._rankings).index(label), len(self._rankings)) if shared else self._share(0, 1)

    @property
    def counts(self) -> dict[int, int]:
        """Exemplars kept, by class."""
        if self.sampler.by_class:
            return {int(label or 0): len(kept.samples) for label, kept in self._rankings.items()}
        return dict(sorted(Counter(int(y) for _, y, _ in self.samples).items()))

    @property
    def samples(self) -> list[Sample]:
        """All exemplars as ``(x, y, task label)``, each class's in the order of its ranking."""
        return [sample for kept in self._rankings.values() for sample in kept.samples]

    def __len__(self) -> int:
        """Exemplars altogether."""
        return sum(len(kept.samples) for kept in self._rankings.values())

    def state_dict(self) -> dict[str, Any]:
        """Budgets, sampler, and exemplars in the order of their ranking."""
        return {
            "per_class": self.per_class,
            "total": self.total,
            "sampler": self.sampler.name,
            "samples": {group: list(kept.samples) for group, kept in self._rankings.items()},
            "keys": {group: kept.keys.clone() for group, kept in self._rankings.items() if len(kept.keys)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a ``state_dict``.

        Raises:
            ValueError: It was made under another budget or by another sampler.
        """
        if (state["per_class"], state["total"]) != (self.per_class, self.total):
            raise ValueError(
                f"the saved memory has per_class={state['per_class']!r}, total={state['total']!r}; "
                f"this one has per_class={self.per_class!r}, total={self.total!r}"
            )
        sampler, keys = state.get("sampler", "uniform"), state.get("keys", {})
        if sampler != self.sampler.name:
            raise ValueError(f"the saved memory was chosen by {sampler!r}; this one has sampler={self.sampler.name!r}")
        rankings = {
            group: Ranking(list(samples), keys[group].clone()) if group in keys else Ranking(list(samples))
            for group, samples in state["samples"].items()
        }
        self._rankings = {None if group is None else int(group): ranking for group, ranking in rankings.items()}

    def _share(self, place: int, groups: int) -> int:
        """The budget of the class at this place among so many."""
        if self.per_class is not None:
            return self.per_class
        share, rest = divmod(self.total or 0, groups)
        return share + (place < rest)

    def _tell_of_small_classes(self) -> None:
        if self.per_class is None or self.sampler.keyed:  # a stream that goes on will bring more
            return
        for label, count in self.counts.items():
            if count < self.per_class and label not in self._small:
                self._small.add(label)
                log.warning(
                    "class %d has only %d samples for per_class=%d: all of them are kept", label, count, self.per_class
                )
