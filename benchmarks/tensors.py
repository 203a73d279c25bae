"""Memory that tensors occupy: what is alive, and the most there was during a step."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from contextlib import AbstractContextManager
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile, record_function

__all__ = ["MemoryTrace", "live_storages", "live_tensors", "own_bytes"]


def live_tensors() -> list[Tensor]:
    """Every tensor that Python can reach, after a collection."""
    gc.collect()
    return [found for found in gc.get_objects() if issubclass(type(found), Tensor)]


def live_storages(tensors: Iterable[Tensor] | None = None) -> dict[int, int]:
    """Bytes of each distinct piece of memory behind tensors, by address.

    Args:
        tensors: Those to look at; every living one if None.

    Example:
        >>> whole = torch.zeros(10)
        >>> list(live_storages([whole, whole[2:5], whole.view(2, 5)]).values())
        [40]
    """
    chosen = live_tensors() if tensors is None else tensors
    storages = (tensor.untyped_storage() for tensor in chosen if tensor.layout is torch.strided)
    return {storage.data_ptr(): storage.nbytes() for storage in storages if storage.nbytes()}


def own_bytes(model: nn.Module, optimizer: Optimizer, others: Iterable[Tensor] = ()) -> int:
    """Bytes alive beside parameters, gradients, the model's buffers, the optimizer's state and other known tensors."""
    known = [*model.parameters(), *model.buffers(), *others]
    known += [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    known += [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    living = live_storages()
    return sum(living.values()) - sum(living.get(address, 0) for address in live_storages(known))


class MemoryTrace:
    """Follows every allocation of torch's from its start to its end, whoever makes it.

    What is to be released in it has to be allocated in it: the profiler sizes only blocks whose allocation it saw.

    Example:
        >>> with MemoryTrace() as trace:
        ...     kept = torch.zeros(1000)
        ...     with trace.mark("doubling"):
        ...         _ = (kept + kept).square_()
        >>> trace.peaks
        {'doubling': 8000}
    """

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self._profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._marks: list[str] = []

    def __enter__(self) -> MemoryTrace:
        self._profiler.__enter__()
        return self

    def mark(self, name: str) -> AbstractContextManager[Any]:
        """A stretch whose peak will be asked for: the most that was allocated in it at one time, in bytes."""
        self._marks.append(name)
        return record_function(name)

    def __exit__(self, *error: Any) -> None:
        self._profiler.__exit__(*error)
        events = self._profiler.profiler.kineto_results.events()
        changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
        spans = {event.name(): (event.start_ns(), event.end_ns()) for event in events if event.name() in self._marks}
        for name, (start, end) in spans.items():
            at_start = sum(size for time, size in changes if time < start)
            inside = [size for time, size in changes if start <= time <= end]
            self.peaks[name] = max(accumulate(inside, initial=at_start))
