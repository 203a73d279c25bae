"""Labels for runs that have none: what tells them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rwalk.experiments.loading import flat
from rwalk.report.study import readable

__all__ = ["labels_of"]

#: Settings that follow from others, or are told otherwise.
NOT_TOLD = {"seed", "method", "device", "threads"}


def labels_of(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """A label for each run: its method, and the settings in which runs of that method differ; equal for equal settings.

    Example:
        >>> runs = [{"method": "rwalk", "lr": lr, "rwalk": {"delta_t": 3}, "seed": s} for lr in (1, 2) for s in (0, 1)]
        >>> labels_of([*runs, {"method": "joint", "lr": 1, "rwalk": {}, "seed": 0}])
        ['rwalk, lr=1', 'rwalk, lr=1', 'rwalk, lr=2', 'rwalk, lr=2', 'joint']
    """
    flattened = [flat(config) for config in configs]
    methods = [str(config.get("method", "run")) for config in configs]
    differing: dict[str, list[str]] = {}
    for method in dict.fromkeys(methods):
        own = [config for config, name in zip(flattened, methods, strict=True) if name == method]
        keys = dict.fromkeys(key for config in own for key in config if key not in NOT_TOLD)
        differing[method] = [key for key in keys if any(config.get(key) != own[0].get(key) for config in own)]
    several = len({str(config.get("benchmark")) for config in configs}) > 1
    labels = []
    for config, method in zip(flattened, methods, strict=True):
        told_of = [*(["benchmark"] if several else []), *(key for key in differing[method] if key != "benchmark")]
        told = [f"{readable(key)}={_plain(config.get(key))}" for key in told_of]
        labels.append(", ".join([method, *told]))
    return labels


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
