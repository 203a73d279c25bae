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
        "before a step",
        ("θ", ".grad", "importance", "anchor", "window start", "gradient", "loss change"),
        (".grad", "gradient", "loss change"),
    ),
    Part("every other step", ("Fisher",), ("Fisher",)),
    Part(
        "instead, where a window opens", ("θ", ".grad", "importance", "anchor"), (".grad", "gradient", "window start")
    ),
    Part(
        "where a window closes",
        ("θ", "window start", "gradient", "Fisher", "loss change", "score"),
        ("loss change", "score"),
    ),
)


def floats_per_parameter(delta_t: int) -> float:
    """Numbers moved for each parameter in a step, on average over a window of an even number of steps.

    Example:
        >>> round(floats_per_parameter(10), 1)
        11.5
    """
    step, fisher, opening, closing = (part.floats for part in PARTS)
    return ((delta_t - 1) * step + delta_t / 2 * fisher + opening + closing) / delta_t


def bytes_per_parameter(delta_t: int) -> float:
    """The same in bytes."""
    return FLOAT * floats_per_parameter(delta_t)
