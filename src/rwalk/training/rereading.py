"""An experience's samples read once more, outside of the loop, in batches like the loop's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from rwalk.streams import task_label_of
from rwalk.streams.in_memory import select

__all__ = ["given_collate_fn", "loader_options", "spread"]


def given_collate_fn(strategy: Any, options: Mapping[str, Any]) -> Callable[[list[Any]], Any] | None:
    """What makes samples a batch: the ``collate_fn`` of this call of ``train`` or ``eval``, else the strategy's.

    Args:
        strategy: Another framework's may have none.
        options: The keyword arguments of the call, as a hook gets them.

    Returns:
        None where neither is given: the dataset's own is next in turn, see ``rwalk.streams.data_loader``.
    """
    function: Callable[[list[Any]], Any] | None = options.get("collate_fn") or getattr(strategy, "collate_fn", None)
    return function


def loader_options(strategy: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """What ``data_loader`` has to be told so that the experience's samples become the batches that are trained on."""
    return {"task_label": task_label_of(strategy.experience), "collate_fn": given_collate_fn(strategy, options)}


def spread(dataset: Any, count: int | None) -> Any:
    """So many samples of a dataset, evenly spaced; all of them if None, or if there are no more.

    Example:
        >>> list(spread(range(9), 3))
        [0, 4, 8]
    """
    if count is None or count >= len(dataset):
        return dataset
    # In float64, whatever the default dtype is: bfloat16 tells no 1000 positions apart.
    return select(dataset, torch.linspace(0, len(dataset) - 1, count, dtype=torch.float64).round().long())
