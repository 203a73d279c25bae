"""The streams that a spec names, built once a process."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset

from rwalk.experiments.spec import RunSpec
from rwalk.streams import Benchmark, Experience, Stream, TensorData, benchmark, labels_of, with_validation

__all__ = ["evaluated", "fingerprint", "joined", "stream_of"]


def stream_of(spec: RunSpec) -> Benchmark:
    """The spec's benchmark, with a validation stream if the spec holds data out.

    Raises:
        ValueError: The settings do not fit the data.
        DataUnavailableError: The data is not to be had.
    """
    return _built(
        spec.benchmark,
        n_experiences=spec.n_experiences,
        seed=spec.seed if spec.shuffle_classes else None,
        task_labels=spec.task_labels,
        class_order=spec.class_order,
        sizes=spec.sizes,
        validation=spec.validation,
    )


@lru_cache(maxsize=2)
def _built(name: str, *, validation: float, **settings: Any) -> Benchmark:
    data = benchmark(name, **settings)
    return with_validation(data, validation, seed=0) if validation else data


def evaluated(data: Benchmark) -> Stream:
    """What a run is judged by: the validation stream where there is one, else the test stream."""
    return data.test_stream if data.valid_stream is None else data.valid_stream


def joined(experiences: list[Experience]) -> Dataset[Any]:
    """The data of several experiences together; in memory, with their views taken, if all of it is there already."""
    parts = [experience.dataset for experience in experiences]
    held = [part for part in parts if isinstance(part, TensorData)]
    if len(held) < len(parts):
        return ConcatDataset(parts)
    columns = zip(*(part.batch(slice(None)) for part in held), strict=True)
    return TensorData(*(torch.cat(column) for column in columns))


@lru_cache(maxsize=4)
def fingerprint(stream: Stream) -> str:
    """What tells the data of one stream from another's: labels, and inputs where they are in memory."""
    digest = blake2b(digest_size=16)
    for experience in stream:
        digest.update(labels_of(experience.dataset).numpy().tobytes())
        data = experience.dataset
        if isinstance(data, TensorData):
            sample = data.batch(slice(0, 32))[0].contiguous()
            digest.update(f"{tuple(data.x.shape)} {data.x.dtype} {float(data.x.double().sum())!r}".encode())
            digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
