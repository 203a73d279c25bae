"""Streams whose class boundaries are blurred."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rwalk.streams.class_incremental import class_groups, class_stream
from rwalk.streams.data import labels_of
from rwalk.streams.experience import Benchmark, Stream
from rwalk.streams.in_memory import as_tensor_data, select
from rwalk.streams.inputs import input_shape_of
from rwalk.streams.splits import class_numbers

__all__ = ["blurry", "deal"]


def blurry(
    name: str,
    train: Dataset[Any],
    test: Dataset[Any],
    n_experiences: int | None = None,
    *,
    blur: float = 0.1,
    disjoint: float = 0.0,
    sizes: Sequence[int] | None = None,
    class_order: Sequence[int] | None = None,
    seed: int | None = None,
) -> Benchmark:
    """Each experience brings mostly its major classes, and a little of all others.

    Every class is major in one experience. Of its n training samples, ``blur`` · n (rounded) are dealt out evenly to
    the other experiences, and the rest arrives where it is major; no sample arrives twice. With ``disjoint`` = 0 that
    is Blurry-M (Bang et al. 2021) for M = 100 · blur; with a share of classes that are not blurred it is i-Blurry-N-M
    (Koh et al. 2022) for N = 100 · disjoint. There are no task labels.

    Args:
        name: Name of the benchmark.
        train: All training data: a ``TensorData``, or any labelled dataset; see ``class_incremental``.
        test: All test data, of the same classes.
        n_experiences: Into how many experiences; see ``class_incremental``.
        blur: Share of each class that arrives elsewhere, 0 ≤ blur < 1.
        disjoint: Share of the classes, drawn by ``seed``, that arrive where they are major only.
        sizes: Number of major classes in each experience instead.
        class_order: Every class once, in the order in which they are major. None: ascending, or drawn by ``seed``.
        seed: Draws the class order when none is given, and which samples arrive where (from seed 0 if None).

    Returns:
        A benchmark whose test experience j holds all test samples of the major classes of experience j, and no other.

    Raises:
        ValueError: A share out of range, an experience left without samples, or as in ``class_incremental``.

    References:
        Bang et al., *Rainbow Memory*, CVPR 2021, arXiv 2103.17230. Koh et al., *Online Continual Learning on Class
        Incremental Blurry Task Configuration with Anytime Inference*, ICLR 2022, arXiv 2110.10031.

    Example:
        >>> from rwalk.streams import TensorData
        >>> data = TensorData(torch.zeros(20, 1), torch.arange(20) % 2)
        >>> mixed = blurry("toy", data, data, 2, blur=0.2)
        >>> [experience.dataset.targets.bincount().tolist() for experience in mixed.train_stream]
        [[8, 2], [2, 8]]
        >>> [experience.classes_in_this_experience for experience in mixed.test_stream]
        [(0,), (1,)]
    """
    if not 0.0 <= blur < 1.0:
        raise ValueError(f"blur={blur!r}: expected a share from 0 to below 1, such as 0.1")
    if not 0.0 <= disjoint <= 1.0:
        raise ValueError(f"disjoint={disjoint!r}: expected a share of the classes from 0 to 1")
    labels, tested = labels_of(train).cpu(), labels_of(test)
    classes = class_numbers(name, labels, tested)
    groups = class_groups(name, classes, n_experiences, sizes=sizes, class_order=class_order, seed=seed)
    generator = torch.Generator().manual_seed(seed or 0)
    apart = torch.randperm(len(classes), generator=generator)[: round(disjoint * len(classes))]
    blurs = dict.fromkeys(classes, blur) | {classes[index]: 0.0 for index in apart.tolist()}
    arrivals = deal(labels, groups, blurs, generator)
    missed = sorted(set(range(len(groups))) - set(arrivals.tolist()))
    if missed:
        raise ValueError(f"experience {missed[0]} of {name} is left without samples: lower blur={blur!r}")
    data = as_tensor_data(train)
    source = train if data is None else data
    parts = [select(source, (arrivals == index).nonzero().flatten()) for index in range(len(groups))]
    test_stream = class_stream("test", test, groups, tested, task_labels=False)
    return Benchmark(name, Stream("train", parts), test_stream, len(classes), input_shape_of(train))


def deal(
    labels: Tensor, groups: Sequence[Sequence[int]], blurs: dict[int, float], generator: torch.Generator
) -> Tensor:
    """In which experience each sample arrives, shape (N,): those of ``groups`` are of their major classes.

    ``blurs`` are the shares of each class that arrive elsewhere.
    """
    arrivals = torch.empty_like(labels)
    for index, group in enumerate(groups):
        others = torch.tensor([other for other in range(len(groups)) if other != index], dtype=torch.int64)
        for label in group:
            members = (labels == label).nonzero().flatten()
            members = members[torch.randperm(len(members), generator=generator)]
            arrivals[members] = index
            away = math.floor(blurs[label] * len(members) + 0.5)
            if away and len(others):
                # the rest of an uneven deal goes to experiences that are drawn, not to the first ones each time
                order = others[torch.randperm(len(others), generator=generator)]
                arrivals[members[:away]] = order.repeat(-(-away // len(order)))[:away]
    return arrivals
