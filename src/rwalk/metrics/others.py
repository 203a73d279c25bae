"""Metrics of torchmetrics, by name or as objects."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from rwalk.errors import MissingExtraError, RWalkError

__all__ = ["OtherMetric", "chosen_metrics"]


def chosen_metrics(metrics: Iterable[Any] | Mapping[str, Any], reserved: Iterable[str] = ()) -> dict[str, Any]:
    """Metrics by the names under which they are published.

    Args:
        metrics: Names of classes in ``torchmetrics``, or its metrics themselves; the names are theirs, or the keys of a
            mapping.
        reserved: Names that are taken.

    Returns:
        For each name a class of ``torchmetrics``, or a metric that serves as a pattern.

    Raises:
        ValueError: No such class, or a name that is taken.
        TypeError: Neither a name nor a metric.
        RWalkError: torchmetrics cannot be imported.
    """
    chosen: dict[str, Any] = {}
    pairs = metrics.items() if isinstance(metrics, Mapping) else ((None, metric) for metric in metrics)
    for key, metric in pairs:
        name = key or (metric if isinstance(metric, str) else type(metric).__name__)
        if name in chosen or name in reserved:
            raise ValueError(f"metric name {name!r} is taken: give a mapping from names to metrics")
        if not isinstance(metric, str) and not (hasattr(metric, "update") and hasattr(metric, "compute")):
            raise TypeError(f"metric {metric!r}: expected a name or a metric of torchmetrics")
        chosen[name] = _class_of(metric) if isinstance(metric, str) else metric
    return chosen


class OtherMetric:
    """A torchmetrics metric over batches, whose value is computed when ``float()`` asks for it.

    Args:
        name: What it is called, for messages.
        kind: A class, made at the first batch for the task that the batch shows; or a metric that is copied.
    """

    def __init__(self, name: str, kind: Any) -> None:
        self.name, self.kind = name, kind
        self.metric: Any = None
        self._made_for: tuple[tuple[int, ...], bool] = (), False

    @property
    def higher_is_better(self) -> bool | None:
        """What torchmetrics says of it; None if it says nothing."""
        found = getattr(self.metric if self.metric is not None else self.kind, "higher_is_better", None)
        return found if isinstance(found, bool) else None

    def add(self, answers: Tensor, targets: Tensor, *, classes: bool) -> None:
        """Count a batch.

        Args:
            answers: The model's, on this batch.
            targets: What it should have answered.
            classes: Whether these are scores of classes, shape (N, C), and class numbers, shape (N,).

        Raises:
            ValueError: The metric needs settings that a batch does not show.
        """
        if self.metric is None:
            self.metric = self._made(answers, classes=classes).to(answers.device)
            self._made_for = tuple(answers.shape[1:]), classes
        whole = type(self.metric).__module__.startswith("torchmetrics.classification") and not classes
        if whole and bool(((targets == 0) | (targets == 1)).all()):  # several labels: yes and no, which are no floats
            targets = targets.long()
        self.metric.update(answers.detach(), targets)

    def __float__(self) -> float:
        """Its value over all that was counted.

        Raises:
            ValueError: It is not one number.
        """
        if self.metric is None:
            return float("nan")
        value = self.metric.compute()
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise ValueError(f"metric {self.name!r} gives {value!r}: expected one number (average='macro', say)")
        return float(value)

    def state_dict(self) -> dict[str, Any]:
        """What was counted so far; empty before there was a batch."""
        if self.metric is None:
            return {}
        shape, classes = self._made_for
        counted = {name: list(value) if isinstance(value, list) else value for name, value in self._counted().items()}
        return {"shape": list(shape), "classes": classes, "counted": counted, "updates": self.metric._update_count}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on counting from a ``state_dict``."""
        self.metric = None
        if state_dict:
            shape, classes = tuple(state_dict["shape"]), bool(state_dict["classes"])
            self.metric, self._made_for = self._made(torch.empty(0, *shape), classes=classes), (shape, classes)
            for name, value in state_dict["counted"].items():
                setattr(self.metric, name, list(value) if isinstance(value, list) else value.clone())
            self.metric._update_count = int(state_dict["updates"])

    def _counted(self) -> dict[str, Any]:
        return {name: getattr(self.metric, name) for name in self.metric._defaults}

    def _made(self, answers: Tensor, *, classes: bool) -> Any:
        if not isinstance(self.kind, type):
            made = copy.deepcopy(self.kind)
            made.reset()
        else:
            try:
                made = self.kind(**_options(self.kind, answers, classes=classes))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"metric {self.name!r} needs settings ({error}): give the metric itself, "
                    f"metrics=[torchmetrics.{self.kind.__name__}(...)]"
                ) from error
        made.distributed_available_fn = _gathered  # answers come from all processes already
        return made


def _options(kind: Any, answers: Tensor, *, classes: bool) -> dict[str, Any]:
    """What of a metric's settings a batch shows: the kind of task, and how many classes."""
    by_task = "task" in inspect.signature(kind.__new__).parameters
    taken = inspect.signature(kind.__new__ if by_task else kind.__init__).parameters
    width = answers.shape[1] if answers.dim() > 1 else 1
    count = "num_classes" if classes else "num_labels"
    task = "multiclass" if classes else "multilabel" if width > 1 else "binary"
    options: dict[str, Any] = {"task": task} if by_task else {}
    if count in taken and task != "binary" and (by_task or taken[count].default is inspect.Parameter.empty):
        options[count] = width
    return options


def _gathered() -> bool:
    return False


def _class_of(name: str) -> Any:
    try:
        import torchmetrics
        import torchmetrics.classification
    except ImportError as error:
        raise MissingExtraError(f"metric {name!r}", "metrics", error) from error
    except RuntimeError as error:
        raise RWalkError(
            f"metric {name!r}: torchmetrics cannot be imported ({error}); it loads torchvision where that is "
            "installed: install the torchvision of this torch, or remove it"
        ) from error
    for module in (torchmetrics, torchmetrics.classification):
        if isinstance(getattr(module, name, None), type):
            return getattr(module, name)
    near = get_close_matches(name, torchmetrics.__all__, n=1, cutoff=0.0)
    raise ValueError(f"torchmetrics has no metric {name!r}; did you mean {near[0]!r}?")
