"""How a labelled dataset becomes a stream."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from rwalk.streams.data import TensorData
from rwalk.streams.experience import Benchmark, Stream

__all__ = ["class_incremental", "permuted"]


def class_incremental(
    name: str,
    train: TensorData,
    test: TensorData,
    n_experiences: int,
    *,
    class_order: Sequence[int] | None = None,
    seed: int | None = None,
    task_labels: bool = False,
) -> Benchmark:
    """Split by class: each experience brings classes that no other has.

    Args:
        name: Name of the benchmark.
        train: All training data.
        test: All test data, of the same classes.
        n_experiences: Into how many experiences; the classes are dealt out in order, as evenly as they divide.
        class_order: Every class once, in the order in which they arrive. None: ascending, or drawn by ``seed``.
        seed: Draws the class order when none is given.
        task_labels: Label each experience as a task of its own (task-incremental) instead of 0 throughout.

    Raises:
        ValueError: More experiences than classes, a class order that is not one, or a class that only one of
            ``train`` and ``test`` has.

    Example:
        >>> data = TensorData(torch.zeros(6, 2), torch.tensor([0, 1, 2, 3, 0, 1]))
        >>> benchmark = class_incremental("toy", data, data, 2, class_order=[3, 1, 0, 2])
        >>> [experience.classes_in_this_experience for experience in benchmark.train_stream]
        [(1, 3), (0, 2)]
    """
    classes = train.targets.unique().tolist()
    only_one_side = sorted(set(classes) ^ set(test.targets.unique().tolist()))
    if only_one_side:
        raise ValueError(f"class {only_one_side[0]} of {name} is missing from the training or the test data")
    if not 1 <= n_experiences <= len(classes):
        raise ValueError(f"n_experiences={n_experiences!r}: {name} has {len(classes)} classes, expected 1 to that many")
    order = _class_order(classes, class_order, seed)
    groups = [tuple(group) for group in torch.tensor_split(torch.tensor(order), n_experiences)]

    def stream(which: str, data: TensorData) -> Stream:
        parts = []
        for index, group in enumerate(groups):
            part = data.subset(torch.isin(data.targets, torch.stack(group)))
            parts.append(part.with_task_label(index) if task_labels else part)
        return Stream(which, parts, range(n_experiences) if task_labels else None)

    return Benchmark(name, stream("train", train), stream("test", test), len(classes), tuple(train[0][0].shape))


def permuted(name: str, train: TensorData, test: TensorData, n_experiences: int, *, seed: int = 0) -> Benchmark:
    """The same data again and again, each time with its input features in another fixed random order.

    Args:
        name: Name of the benchmark.
        train: Training data.
        test: Test data.
        n_experiences: How many permutations. The first leaves the inputs as they are.
        seed: Draws the permutations.

    Returns:
        A domain-incremental benchmark. All experiences share the memory of ``train`` and ``test``.

    Raises:
        ValueError: Fewer than one experience.
    """
    if n_experiences < 1:
        raise ValueError(f"n_experiences={n_experiences!r}: expected at least 1")
    generator = torch.Generator().manual_seed(seed)
    features = train[0][0].numel()
    orders = [torch.arange(features)] + [
        torch.randperm(features, generator=generator) for _ in range(n_experiences - 1)
    ]

    def stream(which: str, data: TensorData) -> Stream:
        views = [
            TensorData(data.x, data.targets, data.task_labels, transform=partial(_permute, order, data.transform))
            for order in orders
        ]
        return Stream(which, views)

    n_classes = len(train.targets.unique())
    return Benchmark(name, stream("train", train), stream("test", test), n_classes, tuple(train[0][0].shape))


def _permute(order: Tensor, first: object, x: Tensor) -> Tensor:
    if callable(first):
        x = first(x)
    return x.flatten(1)[:, order.to(x.device)].view(x.shape)


def _class_order(classes: list[int], class_order: Sequence[int] | None, seed: int | None) -> list[int]:
    if class_order is not None:
        if sorted(class_order) != classes:
            raise ValueError(f"class_order={list(class_order)!r}: expected each of the classes {classes} once")
        return list(class_order)
    if seed is not None:
        shuffled = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
        return [classes[index] for index in shuffled.tolist()]
    return classes
