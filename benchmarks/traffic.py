"""How many bytes the algorithm must move, counted from what each part reads and writes.

Each number of a parameter-sized tensor counts once where it is read and once where it is written, in float32. That a
processor may read a line before it overwrites it (write-allocate) is not counted, here as in the triad's bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FLOAT", "PARTS", "Part", "bytes_per_parameter", "floats_per_parameter"]

FLOAT = 4


@dataclass(frozen=True)
class Part:
    """A pass over the parameters.

    Attributes:
        name: When it happens.
        reads: What it reads.
        writes: What it writes.
        per_window: It happens once a window, not once a step.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    per_window: bool = False

    @property
    def floats(self) -> int:
        """Numbers moved for each parameter."""
        return len(self.reads) + len(self.writes)


#: A step with the penalty acting, in the published settings. Nothing between the passes can be kept in a cache: the
#: optimizer's step, and the next forward and backward pass, come in between.
PARTS = (
    Part("before the step", ("θ", ".grad", "importance", "anchor"), (".grad", "gradient", "θ before")),
    Part("after the step", ("θ", "θ before", "gradient", "Fisher", "loss change"), ("Fisher", "loss change")),
    Part("a window closes", ("θ", "window start", "Fisher", "loss change", "score"), ("loss change", "score"), True),
    Part("a window opens", ("θ",), ("window start",), True),
)


def floats_per_parameter(delta_t: int) -> float:
    """Numbers moved for each parameter in a step, on average over a window.

    Example:
        >>> round(floats_per_parameter(10), 1)
        14.9
    """
    return sum(part.floats / (delta_t if part.per_window else 1) for part in PARTS)


def bytes_per_parameter(delta_t: int) -> float:
    """The same in bytes."""
    return FLOAT * floats_per_parameter(delta_t)
