"""How many bytes the algorithm must move, counted from what its pass over memory reads and writes.

Each number of a parameter-sized tensor counts once where it is read and once where it is written, in float32. That a
processor may read a line before it overwrites it (write-allocate) is not counted, here as in the triad's bandwidth.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FLOAT", "PARTS", "Part", "bytes_per_parameter", "floats_per_parameter"]

FLOAT = 4


@dataclass(frozen=True)
class Part:
    """What a pass over the parameters does.

    Attributes:
        name: When it happens.
        reads: What it reads.
        writes: What it writes.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]

    @property
    def floats(self) -> int:
        """Numbers moved for each parameter."""
        return len(self.reads) + len(self.writes)


#: A step with the penalty acting, in the published settings. Nothing can be kept in a cache from one step to the next:
#: the optimizer's step, and a forward and backward pass, come in between.
PARTS = (
    Part(
        "a step",
        ("θ", ".grad", "importance", "anchor", "gradient", "weights before", "Fisher", "loss change"),
        (".grad", "gradient", "weights before", "Fisher", "loss change"),
    ),
    Part("where a window closes, beside that", ("window start", "score"), ("window start", "score")),
)


def floats_per_parameter(delta_t: int) -> float:
    """Numbers moved for each parameter in a step, on average over a window of at least two steps.

    Example:
        >>> round(floats_per_parameter(10), 1)
        13.4
    """
    step, closing = (part.floats for part in PARTS)
    return step + closing / delta_t


def bytes_per_parameter(delta_t: int) -> float:
    """The same in bytes."""
    return FLOAT * floats_per_parameter(delta_t)
