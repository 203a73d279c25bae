"""The streams that a spec names, built once a process, and what runs look at in them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from rwalk.experiments.spec import RunSpec
from rwalk.streams import Benchmark, Experience, Stream, TensorData, benchmark, labels_of, with_validation
from rwalk.streams.in_memory import as_tensor_data
from rwalk.streams.repositories import DATA_DIR

__all__ = ["evaluated", "fingerprint", "so_far", "stream_of"]


def stream_of(spec: RunSpec) -> Benchmark:
    """The spec's benchmark, with a validation stream if the spec holds data out.

    Raises:
        ValueError: The settings do not fit the data.
        DataUnavailableError: The data is not to be had.
    """
    return _built(
        spec.benchmark,
        where=(os.environ.get(DATA_DIR), Path.cwd()),
        n_experiences=spec.n_experiences,
        seed=spec.seed if spec.shuffle_classes else None,
        task_labels=spec.task_labels,
        class_order=spec.class_order,
        sizes=spec.sizes,
        validation=spec.validation,
        only_first=spec.only_first,
    )


@lru_cache(maxsize=2)
def _built(
    name: str,
    *,
    where: tuple[str | None, Path],  # noqa: ARG001 - what the cache has to know
    validation: float,
    only_first: int | None,
    **settings: Any,
) -> Benchmark:
    data = benchmark(name, **settings)
    data = data if only_first is None else _beginning(data, only_first)
    return with_validation(data, validation, seed=0) if validation else data


def _beginning(data: Benchmark, count: int) -> Benchmark:
    """The first ``count`` training experiences, and what tests them."""
    ends = [end for end in data.test_stream.milestones if end <= count]
    if count > len(data.train_stream) or not ends:
        raise ValueError(
            f"only_first={count}: expected {data.test_stream.milestones[0]} to {len(data.train_stream)}, as many as "
            f"{data.name} has experiences"
        )
    train, test = _cut(data.train_stream, count), _cut(data.test_stream, len(ends), ends)
    return replace(data, train_stream=train, test_stream=test)


def _cut(stream: Stream, count: int, milestones: Sequence[int] | None = None) -> Stream:
    kept = stream[:count]
    return Stream(
        stream.name, [each.dataset for each in kept], [each.task_label for each in kept], milestones=milestones
    )


def evaluated(data: Benchmark) -> Stream:
    """What a run is judged by: the validation stream where there is one, else the test stream."""
    return data.test_stream if data.valid_stream is None else data.valid_stream


def so_far(data: Benchmark, end: int) -> Experience:
    """The last of the first ``end`` training experiences, with the data of all of them."""
    past = data.train_stream[:end]
    classes = sorted({label for experience in past for label in experience.classes_in_this_experience})
    together = _joined([experience.dataset for experience in past])
    return replace(past[-1], dataset=together, classes=tuple(classes))


@lru_cache(maxsize=4)
def fingerprint(stream: Stream) -> str:
    """What tells the data of one stream from another's: labels, and every input that is in memory.

    Of inputs seen through a transform (a permutation, say), the first ones are also taken as it makes them.
    """
    digest = blake2b(digest_size=16)
    known: dict[tuple[int, torch.Size], bytes] = {}
    for experience in stream:
        digest.update(labels_of(experience.dataset).numpy().tobytes())
        data = as_tensor_data(experience.dataset)
        if data is None:
            continue
        place = (data.x.data_ptr(), data.x.shape)  # many views of one memory are read once
        if data is not experience.dataset or place not in known:
            known[place] = blake2b(_bytes(data.x), digest_size=16).digest()
        digest.update(f"{tuple(data.x.shape)} {data.x.dtype}".encode() + known[place])
        digest.update(_bytes(data.task_labels) + _bytes(data.batch(slice(0, 32))[0]))
    return digest.hexdigest()


def _bytes(values: Tensor) -> bytes:
    return values.contiguous().view(torch.uint8).numpy().tobytes()


def _joined(parts: Sequence[Dataset[Any]]) -> Dataset[Any]:
    """Several datasets as one, in memory if they are: bytes as they are, different views as what they make of them."""
    alike = as_tensor_data(ConcatDataset(parts))
    if alike is not None:
        return alike
    held = [as_tensor_data(part) for part in parts]
    if any(part is None for part in held):
        return ConcatDataset(parts)
    columns = zip(*(part.batch(slice(None)) for part in held if part is not None), strict=True)
    return TensorData(*(torch.cat(column) for column in columns))
