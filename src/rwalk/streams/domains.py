"""Streams that bring new domains: the same classes, or new ones, in inputs that look different."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from rwalk.streams.data import BatchTransform, TensorData
from rwalk.streams.experience import Benchmark, Stream
from rwalk.streams.splits import Data

__all__ = ["dataset_incremental", "domain_incremental", "permuted", "views"]


def permuted(
    name: str, train: TensorData, test: TensorData, n_experiences: int, *, seed: int = 0, task_labels: bool = False
) -> Benchmark:
    """The same data again and again, each time with its input features in another fixed random order.

    Args:
        name: Name of the benchmark.
        train: Training data.
        test: Test data.
        n_experiences: How many permutations. The first leaves the inputs as they are.
        seed: Draws the permutations.
        task_labels: Label each experience as a task of its own instead of 0 throughout.

    Returns:
        A domain-incremental benchmark. All experiences share the memory of ``train`` and ``test``.

    Raises:
        ValueError: Fewer than one experience.

    Example:
        >>> data = TensorData(torch.arange(4.0).view(1, 4), torch.tensor([0]))
        >>> second = permuted("toy", data, data, 2, seed=1).train_stream[1].dataset
        >>> second[0][0].sort().values
        tensor([0., 1., 2., 3.])
    """
    if n_experiences < 1:
        raise ValueError(f"n_experiences={n_experiences!r}: expected at least 1")
    generator = torch.Generator().manual_seed(seed)
    features = train[0][0].numel()
    orders = [torch.arange(features)] + [
        torch.randperm(features, generator=generator) for _ in range(n_experiences - 1)
    ]
    return views(Data(name, train, test), [partial(_permute, order) for order in orders], task_labels=task_labels)


def views(data: Data, transforms: Sequence[BatchTransform], *, task_labels: bool = False) -> Benchmark:
    """The same data again and again, each time seen through another transform of a batch of inputs (B, ...).

    All experiences share the memory of the data; ``task_labels`` labels each as a task of its own instead of 0.
    """

    def stream(which: str, part: TensorData) -> Stream:
        return _stream(which, [part.with_transform(transform) for transform in transforms], task_labels)

    return Benchmark(
        data.name, stream("train", data.train), stream("test", data.test), data.n_classes, data.input_shape
    )


def domain_incremental(name: str, domains: Sequence[Data], *, task_labels: bool = False) -> Benchmark:
    """Several datasets of the same classes, one after the other.

    Args:
        name: Name of the benchmark.
        domains: The datasets; class k means the same in all of them.
        task_labels: Label each experience as a task of its own instead of 0 throughout.

    Raises:
        ValueError: No dataset, or datasets that differ in classes or input shape.

    Example:
        >>> part = TensorData(torch.zeros(2, 3), torch.tensor([0, 1]))
        >>> seasons = domain_incremental("seasons", [Data("summer", part, part), Data("winter", part, part)])
        >>> [experience.classes_in_this_experience for experience in seasons.test_stream]
        [(0, 1), (0, 1)]
    """
    first = _alike(name, domains)
    classes = first.train.targets.unique().tolist()
    for other in domains:
        found = other.train.targets.unique().tolist()
        if found != classes:
            label = min(set(classes) ^ set(found))
            raise ValueError(
                f"{name}: {first.name} and {other.name} have not the same classes ({label} is in one of them only); "
                f"datasets with classes of their own make a dataset_incremental benchmark"
            )
    return _in_a_row(name, domains, [0] * len(domains), first.n_classes, task_labels)


def dataset_incremental(name: str, parts: Sequence[Data], *, task_labels: bool = False) -> Benchmark:
    """Several datasets with classes of their own, one after the other.

    The classes of each dataset are numbered on from those of the datasets before it.

    Args:
        name: Name of the benchmark.
        parts: The datasets; the classes of each are numbered from 0.
        task_labels: Label each experience as a task of its own instead of 0 throughout.

    Raises:
        ValueError: No dataset, datasets that differ in input shape, or whose classes are not numbered from 0.

    Example:
        >>> part = TensorData(torch.zeros(2, 3), torch.tensor([0, 1]))
        >>> both = dataset_incremental("both", [Data("letters", part, part), Data("digits", part, part)])
        >>> [experience.classes_in_this_experience for experience in both.train_stream]
        [(0, 1), (2, 3)]
    """
    _alike(name, parts)
    offsets = [0]
    for data in parts:
        if data.train.targets.unique().tolist() != list(range(data.n_classes)):
            raise ValueError(f"{name}: the classes of {data.name} are not numbered from 0 to {data.n_classes - 1}")
        offsets.append(offsets[-1] + data.n_classes)
    return _in_a_row(name, parts, offsets[:-1], offsets[-1], task_labels)


def _in_a_row(name: str, parts: Sequence[Data], offsets: Sequence[int], n_classes: int, tasks: bool) -> Benchmark:
    def stream(which: str, side: Callable[[Data], TensorData]) -> Stream:
        chosen = []
        for data, offset in zip(map(side, parts), offsets, strict=True):
            chosen.append(TensorData(data.x, data.targets + offset, data.task_labels, transform=data.transform))
        return _stream(which, chosen, tasks)

    train, test = stream("train", lambda data: data.train), stream("test", lambda data: data.test)
    return Benchmark(name, train, test, n_classes, parts[0].input_shape)


def _stream(which: str, parts: Sequence[TensorData], task_labels: bool) -> Stream:
    if not task_labels:
        return Stream(which, parts)
    return Stream(which, [part.with_task_label(index) for index, part in enumerate(parts)], range(len(parts)))


def _alike(name: str, parts: Sequence[Data]) -> Data:
    if not parts:
        raise ValueError(f"{name}: expected at least one dataset")
    for other in parts[1:]:
        if other.input_shape != parts[0].input_shape:
            raise ValueError(
                f"{name}: inputs of {parts[0].name} have shape {parts[0].input_shape}, those of {other.name} "
                f"{other.input_shape}: one network takes one shape"
            )
    return parts[0]


def _permute(order: Tensor, x: Tensor) -> Tensor:
    return x.flatten(1)[:, order.to(x.device)].view(x.shape)
