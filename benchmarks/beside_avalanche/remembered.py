"""How many exemplars there are and how many a batch asks for, experience by experience; where Avalanche differs."""

from __future__ import annotations

from collections.abc import Sequence

from rwalk.experiments.spec import RunSpec
from rwalk.streams import Benchmark, labels_of

__all__ = ["asked_for", "differences", "memory_sizes", "same_sampler"]


def memory_sizes(spec: RunSpec, data: Benchmark) -> list[int]:
    """Exemplars in memory as each experience after the first begins; nothing for a spec without exemplars."""
    if not spec.exemplars and not spec.exemplars_total:
        return []
    sizes, kept = [], 0
    for experience in data.train_stream[:-1]:
        if spec.exemplars_total:
            kept = min(spec.exemplars_total, kept + len(labels_of(experience.dataset)))
        else:
            kept += int(labels_of(experience.dataset).bincount().clamp(max=spec.exemplars).sum())
        sizes.append(kept)
    return sizes


def asked_for(spec: RunSpec, data: Benchmark) -> list[int]:
    """Remembered samples that a batch of each experience after the first is to hold."""
    if spec.replay_batch_size != "balanced":
        return [spec.replay_batch_size or spec.batch_size] * (len(data.train_stream) - 1)
    numbers = []
    for experience in data.train_stream[1:]:
        new, old = set(experience.classes_in_this_experience), set(experience.previous_classes)
        numbers.append(max(1, round(spec.batch_size * len(old - new) / len(new))))
    return numbers


def same_sampler(spec: RunSpec) -> bool:
    """Whether Avalanche can choose exemplars as the spec does: uniformly, or by the mean of features of one head."""
    return spec.sampler == "uniform" or (spec.sampler == "mean-of-features" and spec.heads != "multi")


def differences(spec: RunSpec, data: Benchmark) -> list[str]:
    """What Avalanche's replay does otherwise than the spec says; nothing without exemplars."""
    sizes, numbers = memory_sizes(spec, data), asked_for(spec, data)
    found = []
    if sizes and not same_sampler(spec):
        found.append(f"exemplars: rwalk chooses them by {spec.sampler}, Avalanche draws them uniformly in each class")
    if any(size % number for size, number in zip(sizes, numbers, strict=False)):
        found.append(
            f"remembered samples in a batch: rwalk's hold {_range(numbers)}, exemplars repeated as needed; Avalanche's "
            f"loader goes through a memory of {_range(sizes)} in passes, puts no exemplar twice into a batch, and ends "
            "each pass with what is left"
        )
    return found


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"
