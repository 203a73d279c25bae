"""The forgetting–intransigence plane of runs that were just carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rwalk.experiments.summary import Row
from rwalk.report.drawing import draw
from rwalk.report.overview import plane_chart
from rwalk.report.study import Group, Run, Study

__all__ = ["draw_plane"]

Published = Mapping[str, Mapping[str, float | tuple[float, float]]]


def draw_plane(rows: Sequence[Row], path: Path, *, title: str = "", published: Published | None = None) -> Path | None:
    """Draw each label at its mean forgetting and intransigence, with its seeds; lower left is better.

    Args:
        rows: Of ``summarise``.
        path: Where to; its suffix chooses the format (``.svg``, ``.png``, ``.pdf``).
        title: Stands above, instead of what the figure shows.
        published: By label and metric, as in a ``Table``; drawn hollow.

    Returns:
        The path, or None if no row has both figures; a picture of other figures that was there is gone then.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    groups = []
    for row in rows:
        runs = [Run(seed, result.metrics, result.seconds) for seed, result in row.results.items()]
        known = (published or {}).get(row.label, {})
        pairs = {name: figure if isinstance(figure, tuple) else (figure, None) for name, figure in known.items()}
        groups.append(Group(row.label, {}, runs, published=pairs))
    chart = plane_chart(Study("comparison", title, groups), alone=True)
    if chart is None:
        path.unlink(missing_ok=True)
        return None
    return draw(replace(chart, title=title or chart.title), path)
