"""Streams that bring new classes: which arrive together, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rwalk.streams.data import TensorData, labels_of
from rwalk.streams.experience import Benchmark, Stream
from rwalk.streams.in_memory import as_tensor_data, select
from rwalk.streams.inputs import input_shape_of
from rwalk.streams.splits import class_numbers

__all__ = ["class_groups", "class_incremental", "class_stream"]


def class_incremental(
    name: str,
    train: Dataset[Any],
    test: Dataset[Any],
    n_experiences: int | None = None,
    *,
    sizes: Sequence[int] | None = None,
    class_order: Sequence[int] | None = None,
    seed: int | None = None,
    task_labels: bool = False,
) -> Benchmark:
    """Split by class: each experience brings classes that no other has.

    Args:
        name: Name of the benchmark.
        train: All training data: a ``TensorData``, or any labelled dataset (which is then read sample by sample), of
            pairs, of nested inputs, or of rows that are mappings (see ``labels_of``).
        test: All test data, of the same classes.
        n_experiences: Into how many experiences; the classes are dealt out in order, as evenly as they divide.
        sizes: Number of classes in each experience instead, for uneven groups such as ``[4, 2, 4]``.
        class_order: Every class once, in the order in which they arrive. None: ascending, or drawn by ``seed``.
        seed: Draws the class order when none is given.
        task_labels: Label each experience as a task of its own (task-incremental) instead of 0 throughout.

    Raises:
        ValueError: More experiences than classes, sizes that do not add up, a class order that is not one, or a class
            that only one of ``train`` and ``test`` has.

    Example:
        >>> data = TensorData(torch.zeros(6, 2), torch.tensor([0, 1, 2, 3, 0, 1]))
        >>> benchmark = class_incremental("toy", data, data, 2, class_order=[3, 1, 0, 2])
        >>> [experience.classes_in_this_experience for experience in benchmark.train_stream]
        [(1, 3), (0, 2)]
        >>> tasks = class_incremental("toy", data, data, sizes=[1, 3], task_labels=True)
        >>> [(e.classes_in_this_experience, e.task_label) for e in tasks.test_stream]
        [((0,), 0), ((1, 2, 3), 1)]
    """
    labels = {"train": labels_of(train), "test": labels_of(test)}
    classes = class_numbers(name, labels["train"], labels["test"])
    groups = class_groups(name, classes, n_experiences, sizes=sizes, class_order=class_order, seed=seed)
    train_stream = class_stream("train", train, groups, labels["train"], task_labels=task_labels)
    test_stream = class_stream("test", test, groups, labels["test"], task_labels=task_labels)
    return Benchmark(name, train_stream, test_stream, len(classes), input_shape_of(train))


def class_stream(
    which: str, dataset: Dataset[Any], groups: Sequence[Sequence[int]], labels: Tensor, *, task_labels: bool
) -> Stream:
    """One experience for each group of classes, with all their samples.

    With ``task_labels`` they are numbered as tasks; else they keep the task labels of the data, and are task 0.
    """
    data = as_tensor_data(dataset)
    source = dataset if data is None else data
    parts = []
    for index, group in enumerate(groups):
        members = torch.isin(labels, torch.tensor(list(group), device=labels.device)).nonzero().flatten()
        part = select(source, members)
        parts.append(part.with_task_label(index) if task_labels and isinstance(part, TensorData) else part)
    return Stream(which, parts, range(len(groups)) if task_labels else None)


def class_groups(
    name: str,
    classes: Sequence[int],
    n_experiences: int | None = None,
    *,
    sizes: Sequence[int] | None = None,
    class_order: Sequence[int] | None = None,
    seed: int | None = None,
) -> list[list[int]]:
    """Deal classes out to experiences: the classes of each, in order of arrival.

    ``name`` is the benchmark's, for messages, ``classes`` are all of them, ascending; the rest is as in
    ``class_incremental``. Where they do not divide evenly, larger groups come first.

    Raises:
        ValueError: Neither a number of groups nor sizes, both but at odds, more groups than classes, sizes that do not
            add up to the number of classes, or a class order that is none.

    Example:
        >>> class_groups("toy", range(5), 2, class_order=[4, 3, 2, 1, 0])
        [[4, 3, 2], [1, 0]]
        >>> class_groups("toy", range(5), sizes=[1, 4])
        [[0], [1, 2, 3, 4]]
    """
    count = len(classes)
    order = _order(list(classes), class_order, seed)
    if sizes is None:
        if n_experiences is None:
            raise ValueError(f"{name}: give n_experiences or sizes")
        if not 1 <= n_experiences <= count:
            raise ValueError(f"n_experiences={n_experiences!r}: {name} has {count} classes, expected 1 to that many")
        whole, rest = divmod(count, n_experiences)
        sizes = [whole + 1] * rest + [whole] * (n_experiences - rest)
    else:
        _check_sizes(name, list(sizes), count, n_experiences)
    return [order[end - size : end] for end, size in zip(accumulate(sizes), sizes, strict=True)]


def _check_sizes(name: str, sizes: list[int], count: int, n_experiences: int | None) -> None:
    if not sizes or any(size < 1 for size in sizes):
        raise ValueError(f"sizes={sizes!r}: expected the number of classes of each experience, at least 1")
    if sum(sizes) != count:
        raise ValueError(f"sizes={sizes!r} add up to {sum(sizes)}: {name} has {count} classes")
    if n_experiences not in (None, len(sizes)):
        raise ValueError(f"n_experiences={n_experiences!r} and sizes={sizes!r}: give one of the two")


def _order(classes: list[int], class_order: Sequence[int] | None, seed: int | None) -> list[int]:
    if class_order is not None:
        if sorted(class_order) != classes:
            raise ValueError(f"class_order={list(class_order)!r}: expected each of the classes {classes} once")
        return list(class_order)
    if seed is None:
        return classes
    shuffled = torch.randperm(len(classes), generator=torch.Generator().manual_seed(seed))
    return [classes[index] for index in shuffled.tolist()]
