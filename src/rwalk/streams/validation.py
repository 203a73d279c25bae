"""Validation data, held out of what is trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rwalk.streams.data import NoClassLabelsError, TensorData, labels_of
from rwalk.streams.experience import Benchmark, Stream
from rwalk.streams.in_memory import join, select
from rwalk.streams.splits import check_fraction, hold_out

__all__ = ["with_validation"]


def with_validation(benchmark: Benchmark, fraction: float = 0.1, seed: int = 0) -> Benchmark:
    """Hold part of the training data out as a validation stream; test data is not touched.

    Each class gives the same share (where there are none, all samples together do). Validation experience j is held out
    of training experience j. Where training and test experiences do not correspond (streams without tasks), it holds
    the held-out samples of the classes that test experience j tests; a training experience that would be left empty is
    left out. Views of the same data, such as permutations, give up the same samples and go on sharing memory.

    Args:
        benchmark: Any benchmark without validation data.
        fraction: Share of the training data, between 0 and 1.
        seed: Draws which samples are held out.

    Returns:
        The same benchmark with a smaller ``train_stream`` and a ``valid_stream``.

    Raises:
        ValueError: The fraction is out of range, there is a validation stream already, a class has a single sample, or
            a stream without tasks has domains instead of classes.

    Example:
        >>> from rwalk.streams import benchmark
        >>> digits = with_validation(benchmark("split-digits"), 0.2)
        >>> [len(stream[0].dataset) for stream in (digits.train_stream, digits.valid_stream)]
        [201, 50]
    """
    check_fraction(fraction)
    if benchmark.valid_stream is not None:
        raise ValueError(f"{benchmark.name} has a validation stream already")
    if not _correspond(benchmark):
        return _by_classes(benchmark, fraction, seed)
    train, valid = _by_experience(benchmark.train_stream, fraction, seed)
    return replace(benchmark, train_stream=train, valid_stream=valid)


def _correspond(benchmark: Benchmark) -> bool:
    """Whether test experience j has the classes of training experience j, and is taught by it."""
    taught, tested = (
        [experience.classes for experience in stream] for stream in (benchmark.train_stream, benchmark.test_stream)
    )
    return taught == tested and benchmark.test_stream.milestones == tuple(range(1, len(taught) + 1))


def _by_experience(stream: Stream, fraction: float, seed: int) -> tuple[Stream, Stream]:
    divided = _Divided(fraction, seed)
    pairs = [divided(experience.dataset) for experience in stream]
    tasks = [experience.task_label for experience in stream]
    return Stream(stream.name, [kept for kept, _ in pairs], tasks), Stream("valid", [held for _, held in pairs], tasks)


def _by_classes(benchmark: Benchmark, fraction: float, seed: int) -> Benchmark:
    train, test = benchmark.train_stream, benchmark.test_stream
    tested = [label for experience in test for label in experience.classes_in_this_experience]
    if len(tested) != len(set(tested)):
        raise ValueError(
            f"{benchmark.name} has no tasks and tests the same classes in several domains: hold validation data out "
            f"before, as in online(with_validation(benchmark), samples)"
        )
    labels = [labels_of(experience.dataset).cpu() for experience in train]
    held = torch.zeros(sum(map(len, labels)), dtype=torch.bool)
    held[hold_out(torch.cat(labels), fraction, seed)[1]] = True
    masks = held.split([len(part) for part in labels])
    kept = [(e, ~mask) for e, mask in zip(train, masks, strict=True) if not bool(mask.all())]
    left = torch.tensor([not bool(mask.all()) for mask in masks]).cumsum(0)
    milestones = [max(1, int(left[end - 1])) for end in test.milestones]
    valid = []
    for experience in test:
        classes = torch.tensor(experience.classes_in_this_experience)
        chosen = [mask & torch.isin(part, classes) for part, mask in zip(labels, masks, strict=True)]
        valid.append(join([_at(e.dataset, mask) for e, mask in zip(train, chosen, strict=True) if bool(mask.any())]))
    tasks = [experience.task_label for experience in test]
    return replace(
        benchmark,
        train_stream=Stream(train.name, [_at(e.dataset, mask) for e, mask in kept], [e.task_label for e, _ in kept]),
        test_stream=Stream(test.name, [e.dataset for e in test], tasks, milestones=milestones),
        valid_stream=Stream("valid", valid, tasks, milestones=milestones),
    )


def _at(dataset: Dataset[Any], mask: Tensor) -> Dataset[Any]:
    return select(dataset, mask.nonzero().flatten())


def _strata(dataset: Dataset[Any]) -> Tensor:
    try:
        return labels_of(dataset)
    except NoClassLabelsError:
        return torch.zeros(len(dataset), dtype=torch.int64)  # type: ignore[arg-type]


class _Divided:
    """Divides datasets; those that share memory are divided once, in the same way."""

    def __init__(self, fraction: float, seed: int) -> None:
        self._fraction, self._seed = fraction, seed
        self._done: dict[tuple[Any, ...], list[tuple[Tensor, TensorData]]] = {}

    def __call__(self, dataset: Dataset[Any]) -> tuple[Dataset[Any], Dataset[Any]]:
        """What is kept and what is held out."""
        if not isinstance(dataset, TensorData):
            kept, held = hold_out(_strata(dataset), self._fraction, self._seed)
            return select(dataset, kept), select(dataset, held)
        key = (dataset.x.data_ptr(), dataset.x.shape, dataset.x.stride(), dataset.targets.data_ptr())
        if key not in self._done:
            halves = hold_out(_strata(dataset), self._fraction, self._seed)
            self._done[key] = [
                (part, dataset.subset(part)) for part in (half.to(dataset.targets.device) for half in halves)
            ]
        kept_view, held_view = (
            TensorData(part.x, part.targets, dataset.task_labels[positions], transform=dataset.transform)
            for positions, part in self._done[key]
        )
        return kept_view, held_view
