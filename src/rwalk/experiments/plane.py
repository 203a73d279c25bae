"""The forgetting–intransigence plane of a comparison, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rwalk.errors import MissingExtraError
from rwalk.experiments.summary import Row

__all__ = ["draw_plane"]


def draw_plane(rows: Sequence[Row], path: Path, *, title: str = "") -> Path | None:
    """Draw each label at its mean forgetting and intransigence, with standard deviations; lower left is better.

    Args:
        rows: Of ``summarise``.
        path: Where to; its suffix chooses the format (``.svg``, ``.png``, ``.pdf``).
        title: Stands above.

    Returns:
        The path, or None if no row has both figures.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    placed = [(row.label, row.spread("forgetting"), row.spread("intransigence")) for row in rows]
    points = [(label, f, i) for label, f, i in placed if f is not None and i is not None]
    if not points:
        return None
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("the forgetting–intransigence plane", "cli", error) from error
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for index, (label, (forgetting, f_spread), (intransigence, i_spread)) in enumerate(points):
        colour = f"C{index % 10}"
        axes.errorbar(forgetting, intransigence, i_spread, f_spread, fmt="o", color=colour, capsize=3, label=label)
    axes.axhline(0.0, color="0.8", linewidth=0.8, zorder=0)
    axes.axvline(0.0, color="0.8", linewidth=0.8, zorder=0)
    axes.set(xlabel="forgetting (lower is better)", ylabel="intransigence (lower is better)", title=title)
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "rwalk", "svg.fonttype": "none"}):
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path
