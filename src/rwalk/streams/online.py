"""Task-free streams: small experiences, one after the other, without task labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from rwalk.streams.experience import Benchmark, Stream
from rwalk.streams.in_memory import as_tensor_data

__all__ = ["arrival_times", "online"]


def online(
    benchmark: Benchmark,
    samples: int | None = None,
    *,
    n_experiences: int | None = None,
    transition: float = 0.0,
    seed: int = 0,
    name: str | None = None,
) -> Benchmark:
    r"""Let a benchmark's training data arrive a few samples at a time, without task labels.

    Sample i of experience k arrives at time :math:`k + u_i + \tau (v_i - \tfrac{1}{2})`, with
    :math:`u_i, v_i \sim U(0, 1)` and τ the width of a transition. So the samples of an experience come in random order,
    and around the boundary of two experiences the share of the new one rises linearly from 0 to 1 over τ of an
    experience's time. Each sample arrives once.

    Args:
        benchmark: Whose training data arrives.
        samples: Number of samples in a small experience; the last one may have fewer.
        n_experiences: Number of small experiences instead, as even as they divide.
        transition: τ, from 0 (the next experience begins when the one before is over) to 1.
        seed: Draws the order of arrival.
        name: Name of the new benchmark; ``"online "`` before the old one if None.

    Returns:
        A benchmark whose training stream is in order of arrival. Its test and validation streams are those of
        ``benchmark``, without task labels: test experience j tests what experience j of ``benchmark`` teaches, which is
        taught when time j + 1 is over (see ``milestones`` of ``Stream``). Small experiences copy nothing.

    Raises:
        ValueError: Not exactly one of ``samples`` and ``n_experiences``, one that does not fit the data, or a
            transition out of range.

    Example:
        >>> from rwalk.streams import TensorData, class_incremental
        >>> data = TensorData(torch.zeros(12, 1), torch.tensor([0, 1] * 6))
        >>> arriving = online(class_incremental("toy", data, data, 2), 4)
        >>> [experience.classes_in_this_experience for experience in arriving.train_stream]
        [(0,), (0, 1), (1,)]
        >>> len(arriving.test_stream), arriving.test_stream.milestones
        (2, (2, 3))
    """
    if not 0.0 <= transition <= 1.0:
        raise ValueError(f"transition={transition!r}: expected a width from 0 to 1")
    sources = [_without_task(experience.dataset) for experience in benchmark.train_stream]
    counts = [len(source) for source in sources]  # type: ignore[arg-type]
    times = arrival_times(counts, transition, seed)
    order: Tensor = times.argsort(stable=True)
    owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    within = torch.cat([torch.arange(count) for count in counts])
    parts: list[Dataset[Any]] = []
    for chosen in _cut(order, samples, n_experiences):
        members = [(source, within[chosen[owner[chosen] == index]].tolist()) for index, source in enumerate(sources)]
        shares = [Subset(source, positions) for source, positions in members if positions]
        parts.append(shares[0] if len(shares) == 1 else ConcatDataset(shares))
    arrived = torch.tensor([len(part) for part in parts]).cumsum(0)  # type: ignore[arg-type]

    def tests(stream: Stream) -> Stream:
        datasets = [_without_task(experience.dataset) for experience in stream]
        ends = [len(times) if end == len(counts) else int((times <= end).sum()) for end in stream.milestones]
        return Stream(stream.name, datasets, milestones=(torch.searchsorted(arrived, torch.tensor(ends)) + 1).tolist())

    valid = benchmark.valid_stream
    return Benchmark(
        f"online {benchmark.name}" if name is None else name,
        Stream("train", parts),
        tests(benchmark.test_stream),
        benchmark.n_classes,
        benchmark.input_shape,
        None if valid is None else tests(valid),
    )


def arrival_times(counts: list[int], transition: float, seed: int) -> Tensor:
    """When each sample arrives, in experiences: shape (N,), float64, experience after experience.

    ``counts`` are the numbers of samples, ``transition`` is the width of one, ``seed`` draws the times.
    """
    generator = torch.Generator().manual_seed(seed)
    begin = torch.arange(len(counts), dtype=torch.float64).repeat_interleave(torch.tensor(counts))
    place, noise = torch.rand(2, len(begin), dtype=torch.float64, generator=generator)
    times: Tensor = begin + place + transition * (noise - 0.5)
    return times


def _cut(order: Tensor, samples: int | None, n_experiences: int | None) -> Sequence[Tensor]:
    if (samples is None) == (n_experiences is None):
        raise ValueError(f"samples={samples!r} and n_experiences={n_experiences!r}: give one of the two")
    if samples is not None:
        if samples < 1:
            raise ValueError(f"samples={samples!r}: expected at least 1 in each experience")
        return torch.split(order, samples)
    count = n_experiences or 0
    if not 1 <= count <= len(order):
        raise ValueError(f"n_experiences={n_experiences!r}: expected 1 to {len(order)}, the number of samples")
    return torch.tensor_split(order, count)


def _without_task(dataset: Dataset[Any]) -> Dataset[Any]:
    data = as_tensor_data(dataset)
    return dataset if data is None else data.with_task_label(0)
