"""Calling a model that may take task labels, or hold a module that does."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel

from rwalk.errors import RWalkError
from rwalk.models.dynamic import MultiTaskModule
from rwalk.models.wrappers import unwrapped

__all__ = ["ModelCall"]

BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class ModelCall:
    """Calls a model with inputs and task labels, whether or not it takes the latter.

    A ``MultiTaskModule`` (or Avalanche's) is called as ``model(x, task_labels)``. Any other model is called as
    ``model(x)``; a ``MultiTaskModule`` somewhere inside it finds the labels laid down while the call lasts.

    Inputs that are a mapping are given by name, ``model(**x)``, to a model that takes these names, and as they are to
    any other; but one of torch's own layers, which take tensors, gets the only entry of a mapping that has one.

    Args:
        model: The model, perhaps wrapped by DDP or ``torch.compile``. Modules put into it later are not seen.

    Raises:
        RWalkError: In a call, a ``DataParallel`` model with such a module inside, whose replicas would each see the
            labels of the whole batch.

    Example:
        >>> import torch
        >>> class Shifted(MultiTaskModule):
        ...     def forward_single_task(self, x, task_label):
        ...         return x + task_label
        >>> call = ModelCall(nn.Sequential(nn.Identity(), Shifted()))
        >>> call(torch.zeros(3, 1), torch.tensor([0, 2, 1])).flatten().tolist()
        [0.0, 2.0, 1.0]
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.passes_labels = _takes_task_labels(unwrapped(model))
        inside = () if self.passes_labels else model.modules()
        self._inside = [module for module in inside if isinstance(module, MultiTaskModule)]
        parameters = inspect.signature(unwrapped(model).forward).parameters
        self._kinds = {name: parameter.kind for name, parameter in parameters.items()}
        self._takes_tensors = _is_torchs_own(unwrapped(model))

    def takes(self, name: str) -> bool:
        """Whether the model has a parameter of this name."""
        return name in self._kinds

    def __call__(self, x: Any, task_labels: Any) -> Any:
        """The model's output for a batch."""
        if self.passes_labels:
            return self._forward(x, task_labels)
        if not self._inside:
            return self._forward(x)
        if isinstance(self.model, DataParallel):
            raise RWalkError(
                "DataParallel splits a batch, but not the task labels laid down for a module inside the model: use "
                "DistributedDataParallel, or make the model itself a MultiTaskModule"
            )
        for module in self._inside:
            module.told = task_labels
        try:
            return self._forward(x)
        finally:
            for module in self._inside:
                module.told = None

    def _forward(self, x: Any, *task_labels: Any) -> Any:
        if isinstance(x, Mapping) and not self._by_name(x) and self._takes_tensors and len(x) == 1:
            (x,) = x.values()
        if not isinstance(x, Mapping) or not self._by_name(x):
            return self.model(x, *task_labels)
        return self.model(**x, **({"task_labels": task_labels[0]} if task_labels else {}))

    def _by_name(self, x: Mapping[str, Any]) -> bool:
        anything = inspect.Parameter.VAR_KEYWORD in self._kinds.values()
        return anything or all(self._kinds.get(name) in BY_NAME for name in x)


def _is_torchs_own(model: nn.Module) -> bool:
    """Whether what the model does first is one of torch's layers."""
    while isinstance(model, nn.Sequential) and len(model):
        model = model[0]
    return type(model).__module__.startswith("torch.nn.modules.")


def _takes_task_labels(model: nn.Module) -> bool:
    theirs = hasattr(model, "_auto_adapt") and callable(getattr(model, "forward_single_task", None))
    return isinstance(model, MultiTaskModule) or theirs
