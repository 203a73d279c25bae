"""Which classes arrive together, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch

__all__ = ["class_groups"]


def class_groups(
    name: str,
    classes: Sequence[int],
    n_experiences: int | None = None,
    *,
    sizes: Sequence[int] | None = None,
    class_order: Sequence[int] | None = None,
    seed: int | None = None,
) -> list[list[int]]:
    """Deal classes out to experiences.

    Args:
        name: Name of the benchmark, for messages.
        classes: All classes, ascending.
        n_experiences: How many groups; classes are dealt out in order, as evenly as they divide, larger groups first.
        sizes: Number of classes in each group instead.
        class_order: Every class once, in the order in which they arrive. None: ascending, or drawn by ``seed``.
        seed: Draws the class order when none is given.

    Returns:
        The classes of each experience, in order of arrival.

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
