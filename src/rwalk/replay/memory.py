"""Exemplars of what is past, within a budget."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from rwalk.replay.probe import Probe
from rwalk.replay.ranking import Ranking, Sample, class_of
from rwalk.replay.sampler import Sampler
from rwalk.replay.samplers import as_sampler

__all__ = ["ExemplarMemory"]

log = logging.getLogger(__name__)


class ExemplarMemory:
    """Keeps a few samples of every class seen, or (``sampler="reservoir"``) of any supervised data.

    It holds the samples themselves, so that neither it nor its ``state_dict`` needs the datasets they came from.

    Args:
        per_class: Exemplars of each class. Give this or ``total``.
        total: Exemplars altogether, shared out evenly over the classes seen; classes give up exemplars as others join,
            the least important ones first. With ``sampler="reservoir"`` nothing is shared out.
        sampler: Which samples are kept: one of ``SAMPLERS`` by name, or a ``Sampler``.
        seed: Choices are drawn from a random generator of its own, begun here and part of its state. None: from torch's
            global one, whose state belongs into the checkpoint of the whole training.

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
        self,
        *,
        per_class: int | None = None,
        total: int | None = None,
        sampler: str | Sampler = "uniform",
        seed: int | None = None,
    ) -> None:
        if (per_class is None) == (total is None):
            raise ValueError(f"per_class={per_class!r}, total={total!r}: expected exactly one of the two budgets")
        name, budget = ("per_class", per_class) if per_class is not None else ("total", total)
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
            raise ValueError(f"{name}={budget!r}: expected at least 1 exemplar")
        self.per_class, self.total, self.sampler = per_class, total, as_sampler(sampler)
        if per_class is not None and not self.sampler.by_class:
            raise ValueError(
                f"per_class={per_class!r}: {self.sampler.name!r} chooses among all classes together; give total=, or "
                "take 'class-balanced-reservoir'"
            )
        self._rankings: dict[int | None, Ranking] = {}  # by class; under None where classes are not told apart
        self._small: set[int] = set()
        self._random = None if seed is None else torch.Generator().manual_seed(seed).get_state()

    def update(
        self,
        dataset: Dataset[Any],
        labels: Tensor | Sequence[int] | None,
        task_label: int = 0,
        *,
        model: nn.Module | Probe | None = None,
    ) -> None:
        """Take exemplars of a dataset and bring every class within its budget.

        A class that is kept already and comes again is ranked anew, old exemplars and new samples together; with
        ``uniform`` each of these is equally likely, with the reservoirs each sample that ever came. A class that does
        not come again keeps its ranking, also when the model has changed since.

        Args:
            dataset: Samples ``(x, y)`` or ``(x, y, task label)``, or mappings; x and y may be nested.
            labels: Their class labels, whole numbers, shape (N,): a tensor, an array or a list. None if they have
                none, or the sampler does not choose by class; then they are not read.
            task_label: For samples that carry none.
            model: For samplers that look at one; a ``Probe`` says how. It is left as it was.

        Raises:
            ValueError: The sampler needs class labels or a model that are not given, the model does not fit it (see
                ``Probe``), its features are not finite, or there is not one label for each sample. The memory is then
                as it was.
            TypeError: The labels are no whole numbers, or a layer gives something else than a tensor.
        """
        if self.sampler.needs_model and model is None:
            raise ValueError(f"sampler {self.sampler.name!r} looks at the model: give update(..., model=model)")
        if labels is None:
            self.sampler.refuse_without_classes()
        classes = None if labels is None or not self.sampler.by_class else _classes(labels, dataset)
        probe = Probe(model) if isinstance(model, nn.Module) else model
        with self._drawing():
            self._rankings = self._updated(dataset, classes, task_label, probe)
        self._tell_of_small_classes()

    def _updated(
        self, dataset: Any, labels: Tensor | None, task_label: int, probe: Probe | None
    ) -> dict[int | None, Ranking]:
        arrived = [None] if labels is None else labels.unique().tolist()
        groups, nothing = list(dict.fromkeys([*self._rankings, *arrived])), Ranking()
        rankings: dict[int | None, Ranking] = {}
        for place, group in enumerate(groups):
            ranking, budget = self._rankings.get(group, nothing), self._share(place, len(groups))
            if group in arrived:
                members = [*range(len(dataset))]
                if labels is not None and group is not None:
                    members = (labels == group).nonzero().flatten().tolist()
                ranking = ranking.joined_by(
                    dataset, members, budget, self.sampler, label=group, task_label=task_label, probe=probe
                )
            rankings[group] = ranking.first(budget)
        return rankings

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Inside, torch's global generator is this memory's own, if it has one: a user's sampler draws from it too."""
        if self._random is None:
            yield
            return
        outside = torch.get_rng_state()
        torch.set_rng_state(self._random)
        try:
            yield
        finally:
            self._random = torch.get_rng_state()
            torch.set_rng_state(outside)

    def budget(self, label: int) -> int:
        """How many exemplars a class may have now; the first classes seen get what does not divide evenly."""
        shared = self.total is not None and self.sampler.by_class
        return self._share(list(self._rankings).index(label), len(self._rankings)) if shared else self._share(0, 1)

    @property
    def counts(self) -> dict[int, int]:
        """Exemplars kept, by class; those without a class are not counted."""
        if self.sampler.by_class:
            return {int(label or 0): len(kept.samples) for label, kept in self._rankings.items()}
        labels = Counter(class_of(sample) for sample in self.samples)
        return {label: count for label, count in sorted(labels.items(), key=str) if label is not None}

    @property
    def samples(self) -> list[Sample]:
        """All exemplars as ``(x, y, task label)``, each class's in the order of its ranking.

        Of rows that are mappings, x is the row and y its ``labels`` or ``label``.
        """
        return [sample for kept in self._rankings.values() for sample in kept.samples]

    def __len__(self) -> int:
        """Exemplars altogether."""
        return sum(len(kept.samples) for kept in self._rankings.values())

    def batches(self, size: int, *, seed: int | None = None) -> Iterator[Any]:
        """Batches of exemplars without end, for a loop of your own: ``x, y, _ = next(batches)``.

        Every exemplar comes once before one comes again, in a new order each time. Samples that join the memory are
        drawn from the next pass on.

        Args:
            size: Samples in each batch; all there are, where there are fewer.
            seed: Of the order. None: from torch's global generator.

        Yields:
            Batches ``[x, y, task labels]``, or of rows that are mappings, mappings. x and y are put together as torch's
            ``default_collate`` does.

        Raises:
            ValueError: ``size`` is not a whole number ≥ 1, or the memory is empty.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"size={size!r}: expected a whole number of samples ≥ 1")
        if not len(self):
            raise ValueError("the memory is empty: update(dataset, labels) it at the end of a task first")
        return _batches(self, size, None if seed is None else torch.Generator().manual_seed(seed))

    def state_dict(self) -> dict[str, Any]:
        """Budgets, sampler, random generator, and the exemplars in the order of their ranking.

        ``torch.load(..., weights_only=True)`` reads it where samples are made of tensors, numbers and text.
        """
        return {
            "per_class": self.per_class,
            "total": self.total,
            "sampler": self.sampler.name,
            "sampler_state": self.sampler.state_dict(),
            "random": None if self._random is None else self._random.clone(),
            "samples": {group: list(kept.samples) for group, kept in self._rankings.items()},
            "keys": {group: kept.keys.clone() for group, kept in self._rankings.items() if len(kept.keys)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a ``state_dict``.

        Raises:
            ValueError: It was made under another budget or by another sampler, or only one of the two has a seed.
        """
        if (state["per_class"], state["total"]) != (self.per_class, self.total):
            raise ValueError(
                f"the saved memory has per_class={state['per_class']!r}, total={state['total']!r}; "
                f"this one has per_class={self.per_class!r}, total={self.total!r}"
            )
        sampler, keys = state.get("sampler", "uniform"), state.get("keys", {})
        if sampler != self.sampler.name:
            raise ValueError(f"the saved memory was chosen by {sampler!r}; this one has sampler={self.sampler.name!r}")
        random = state.get("random")
        if (random is None) != (self._random is None):
            raise ValueError(
                f"the saved memory has {'no ' if random is None else 'a '}random generator of its own: give "
                f"{'no' if random is None else 'a'} seed= to the one that goes on from it"
            )
        self.sampler.load_state_dict(state.get("sampler_state", {}))
        self._random = None if random is None else random.clone()
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


def _classes(labels: Any, dataset: Any) -> Tensor:
    """Class labels as int64, shape (N,), one for each sample.

    Raises:
        TypeError: They are no whole numbers.
        ValueError: They have another shape.
    """
    try:
        found = torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"labels are a {type(labels).__name__} that makes no tensor: expected whole numbers, one class label for "
            "each sample"
        ) from None
    if found.numel() and (found.is_floating_point() or found.is_complex()):
        raise TypeError(f"labels of {found.dtype}: expected whole numbers, one class label for each sample")
    size = len(dataset) if hasattr(dataset, "__len__") else found.numel()
    if found.shape != (size,):
        raise ValueError(
            f"labels of shape {tuple(found.shape)} for {size} samples: expected shape ({size},), one class label for "
            "each sample"
        )
    return found.long()


def _batches(memory: ExemplarMemory, size: int, rng: torch.Generator | None) -> Iterator[Any]:
    def in_order() -> Iterator[Sample]:
        while True:
            samples = memory.samples
            yield from (samples[index] for index in torch.randperm(len(samples), generator=rng).tolist())

    drawn = in_order()
    while True:
        chosen = list(islice(drawn, min(size, len(memory))))
        yield default_collate([sample[0] if isinstance(sample[0], Mapping) else sample for sample in chosen])
