"""A picture of where the importance sits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rwalk.errors import MissingExtraError, RWalkError

__all__ = ["draw_importances"]

BAR, MARK = "#0072b2", "#c04e00"  # told apart by the colour-blind
WORDS = {"penalty": "importance", "fisher": "Fisher", "score": "path score"}


def draw_importances(values: Mapping[str, Tensor], kind: str, *, ax: Any, layers: int) -> Any:
    """Draw each layer's share, and the share of its weights that carries half of it.

    Args:
        values: By parameter name, non-negative parts count.
        kind: What they are.
        ax: matplotlib's axes; a new figure's if None.
        layers: At most so many.

    Raises:
        MissingExtraError: matplotlib is not installed.
        RWalkError: There is nothing to draw.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtraError("plot_importances", "bench", error) from error
    of_layer: dict[str, list[Tensor]] = {}
    for name, value in values.items():
        of_layer.setdefault(name.rpartition(".")[0] or name, []).append(value.detach().float().cpu().flatten().clamp(0))
    joined = {name: torch.cat(parts) for name, parts in of_layer.items()}
    whole = sum(float(value.sum()) for value in joined.values())
    if not whole:
        raise RWalkError(f"there is no {WORDS[kind]} to draw yet: consolidate() or protect(batches) first")
    ranked = sorted(joined, key=lambda name: -float(joined[name].sum()))[:layers]
    shares = [100 * float(joined[name].sum()) / whole for name in ranked]
    halves = [100 * _half_in(joined[name]) for name in ranked]
    if ax is None:
        _, ax = pyplot.subplots(figsize=(7.5, 1.6 + 0.32 * len(ranked)), layout="constrained")
    rows = range(len(ranked))
    ax.barh(rows, shares, color=BAR)
    ax.plot(halves, rows, "D", color=MARK, markersize=5)
    widest = max(*shares, *halves)
    for row, (share, half) in enumerate(zip(shares, halves, strict=True)):
        free = half if 0 <= half - share < 0.1 * widest else share  # not over the mark
        ax.annotate(
            f"{share:.1f} %" if share < 10 else f"{share:.0f} %",
            (free, row), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
    ax.set_yticks(rows, [name if len(name) <= 34 else "…" + name[-33:] for name in ranked])
    ax.invert_yaxis()
    ax.set_xlim(0, widest * 1.15)
    ax.set_xlabel("%")
    ax.set_title(f"{ranked[0]!r} carries {shares[0]:.0f} % of the {WORDS[kind]}", loc="left", fontsize=11, pad=24)
    told = ((0.0, BAR, f"■ share of all {WORDS[kind]}"), (0.42, MARK, "◆ share of its weights that carries half of it"))
    for place, colour, text in told:  # the words that the colours mean, above what they mean
        ax.annotate(
            text, (place, 1.0), xycoords="axes fraction", xytext=(0, 8), textcoords="offset points",
            color=colour, fontsize=8.5,
        )  # fmt: skip
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _half_in(values: Tensor) -> float:
    """The smallest share of elements that has half of the sum."""
    if not len(values):
        return 0.0
    ranked = values.sort(descending=True).values.double().cumsum(0)
    return (int((ranked < ranked[-1] / 2).sum()) + 1) / len(values) if float(ranked[-1]) else 0.0
