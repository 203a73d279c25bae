"""Memory that tensors take: what is alive, and the most there was at one time."""

import gc
from itertools import accumulate

from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function


def living() -> list[Tensor]:
    """Every tensor that Python can reach."""
    gc.collect()
    return [found for found in gc.get_objects() if issubclass(type(found), Tensor)]


def kept_bytes() -> int:
    """Bytes of all memory behind living tensors, each piece once."""
    storages = [tensor.untyped_storage() for tensor in living() if tensor.device.type == "cpu"]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


class Peaks:
    """Follows every allocation that torch makes, whoever asks for it.

    Example:
        >>> with Peaks() as peaks:
        ...     with peaks.of("a sum"):
        ...         _ = (torch.zeros(1000) + 1.0).sum()
        >>> peaks["a sum"] // 4000
        2
    """

    def __init__(self) -> None:
        self._profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._found: dict[str, int] = {}

    def __enter__(self) -> "Peaks":
        self._profiler.__enter__()
        return self

    def of(self, name: str) -> record_function:
        """A stretch to look at."""
        self._found[name] = 0
        return record_function(name)

    def __getitem__(self, name: str) -> int:
        """The most bytes that were allocated within a stretch, above what there was at its beginning."""
        return self._found[name]

    def __exit__(self, *error: object) -> None:
        self._profiler.__exit__(*error)
        events = self._profiler.profiler.kineto_results.events()
        changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
        for event in events:
            if event.name() in self._found:
                inside = [size for time, size in changes if event.start_ns() <= time <= event.end_ns()]
                self._found[event.name()] = max(self._found[event.name()], *accumulate(inside, initial=0))
