"""Where names go beside points: none over another, none over a point, none outside; what has no room is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Spot", "place"]

Shift = tuple[float, float]
Box = tuple[float, float, float, float]  # left, right, bottom, top
WIDE, HIGH = 5.4, 11.0  # of a character of 9 points


@dataclass(frozen=True)
class Spot:
    """A point and its name; in points of 1/72 inch from the lower left corner."""

    x: float
    y: float
    text: str


def place(spots: Sequence[Spot], size: tuple[float, float], *, beside: bool = False) -> list[Shift | None]:
    """How far each name begins from its point; None where it has no room.

    Args:
        spots: What is named, what matters most first.
        size: Width and height of the area.
        beside: All names to the right of their points, as at the ends of lines; they may be outside.

    Example:
        >>> place([Spot(10, 10, "a"), Spot(10, 12, "b")], (100, 100), beside=True)
        [(7.0, -11.0), (7.0, 0.0)]
    """
    taken: list[Box] = []
    signs = [] if beside else [(s.x - 5, s.x + 5, s.y - 5, s.y + 5) for s in spots]
    found: list[Shift | None] = [None] * len(spots)
    order = sorted(range(len(spots)), key=lambda number: -spots[number].y) if beside else range(len(spots))
    for index in order:
        spot = spots[index]
        width = WIDE * len(spot.text) + 2
        for dx, dy in _ways(width, beside=beside):
            box = spot.x + dx, spot.x + dx + width, spot.y + dy - HIGH / 2, spot.y + dy + HIGH / 2
            others = [sign for number, sign in enumerate(signs) if number != index]
            inside = beside or (box[0] >= 0 and box[1] <= size[0])
            if inside and box[2] >= -8 and box[3] <= size[1] + 10 and not any(_meet(box, b) for b in [*taken, *others]):
                taken.append(box)
                found[index] = (dx, dy)
                break
    return found


def _ways(width: float, *, beside: bool) -> list[tuple[float, float]]:
    if beside:
        return [(7.0, step * HIGH * sign) for step in range(6) for sign in ((-1, 1) if step else (1,))]
    left = -6.0 - width
    corners = [(x, y) for x in (6.0, left) for y in (11.0, -11.0)]  # where no interval is drawn
    return [*corners, (8.0, 0.0), (left - 2.0, 0.0), (-width / 2, 15.0), (-width / 2, -15.0),
            *((x, y) for y in (23.0, -23.0) for x in (6.0, left))]  # fmt: skip


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]
