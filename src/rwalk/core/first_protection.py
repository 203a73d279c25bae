"""What a door protects before it trains: data and how, kept until there is a model."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, overload

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from rwalk.core.config import RWalkConfig
from rwalk.core.regularizer import RWalk

__all__ = ["FirstProtection"]

log = logging.getLogger(__name__)

OPTIONS = tuple(inspect.signature(RWalk.protect).parameters)[2:]


class FirstProtection:
    """Calls ``RWalk.protect`` once, when the first training begins and nothing is protected yet.

    Args:
        data: Batches (a list, a ``DataLoader``), or a dataset, which is read in order.
        options: Keyword arguments of ``RWalk.protect``.

    Raises:
        TypeError: ``data`` is a single batch.
        ValueError: An option that ``RWalk.protect`` does not have.
    """

    def __init__(self, data: Any, options: Mapping[str, Any] | None) -> None:
        self.options = dict(options or {})
        for name in self.options:
            if name not in OPTIONS:
                raise ValueError(f"protect_options has {name!r}: expected some of {', '.join(OPTIONS)}")
        if self.options and data is None:
            raise ValueError("protect_options without protect: give the data too")
        if isinstance(data, (Tensor, Mapping, str)):
            raise TypeError(
                f"protect is one {type(data).__name__}: expected batches (a list, a DataLoader) or a dataset; "
                "one batch is [batch]"
            )
        self.data = data

    @overload
    def keeps(self, config: RWalkConfig) -> RWalkConfig: ...

    @overload
    def keeps(self, config: RWalkConfig | None) -> RWalkConfig | None: ...

    def keeps(self, config: RWalkConfig | None) -> RWalkConfig | None:
        """The settings, with which a task's end does not throw away what was protected."""
        if self.data is None:
            return config
        config = config or RWalkConfig()
        if config.combine == "replace":
            log.info("protect=…: combine='sum', so that importances of tasks that follow join those protected here")
            config = config.replace(combine="sum")
        return config

    def batches(
        self,
        *,
        batch_size: int,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        lists_hold_samples: bool = False,
    ) -> Iterable[Any]:
        """The data in batches.

        Args:
            batch_size: For a dataset.
            collate_fn: Makes its samples a batch.
            lists_hold_samples: A list is a dataset, not batches.
        """
        found: Any = self.data
        is_dataset = hasattr(found, "__getitem__") or isinstance(found, IterableDataset)
        holds_batches = DataLoader if lists_hold_samples else (DataLoader, list, tuple)
        if is_dataset and not isinstance(found, holds_batches):
            found = DataLoader(found, batch_size, collate_fn=collate_fn)
        listed: Iterable[Any] = found
        return listed

    def __call__(
        self,
        rwalks: Iterable[RWalk],
        *,
        batch_size: int,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        prepare: Callable[[Any], Any] = lambda batch: batch,
        lists_hold_samples: bool = False,
    ) -> None:
        """Protect, once, and log what was done.

        Args:
            rwalks: The cores.
            batch_size: As in ``batches``, and so are ``collate_fn`` and ``lists_hold_samples``.
            collate_fn: Makes samples a batch.
            prepare: What the framework does to each batch.
            lists_hold_samples: A list is a dataset.
        """
        if self.data is None:
            return
        found = self.batches(batch_size=batch_size, collate_fn=collate_fn, lists_hold_samples=lists_hold_samples)
        listed = list(rwalks)
        if len(listed) > 1 and isinstance(found, Iterator):
            found = list(found)  # each of them reads all
        for rwalk in listed:
            log.info("protect: %s", rwalk.protect(map(prepare, found), **self.options))
        self.data = None
