"""Modules that change with what arrives, and modules that are told which task a sample belongs to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rwalk.models.masking import lowest
from rwalk.models.wrappers import compiled, unwrapped

__all__ = ["DynamicModule", "MultiTaskModule", "adapt", "is_dynamic"]


class DynamicModule(nn.Module):
    """A module that adapts itself to each experience before it is learned or evaluated.

    Args:
        auto_adapt: Adapted whenever the model it is part of is. With False, the module around it sees to that.

    Example:
        >>> class Counts(DynamicModule):
        ...     seen = 0
        ...     def adaptation(self, experience):
        ...         self.seen += self.training
        >>> model = nn.Sequential(Counts(), nn.Linear(2, 2))
        >>> adapt(model, experience=None)
        >>> model[0].seen
        1
    """

    def __init__(self, auto_adapt: bool = True) -> None:
        super().__init__()
        self._auto_adapt = auto_adapt

    def adaptation(self, experience: Any) -> None:
        """Make ready for an experience; nothing by default.

        In train mode, parameters may be added or grow; the training template lets the optimizer follow. In eval mode
        the experience is only measured, and parameters must stay as they are.

        Args:
            experience: Its ``classes_in_this_experience`` and ``task_labels`` are what matters.
        """


class MultiTaskModule(DynamicModule):
    """A module that takes task labels beside its inputs.

    Samples are grouped by task label, and each group goes through ``forward_single_task`` at once.

    Args:
        auto_adapt: See ``DynamicModule``.

    Example:
        >>> class Scaled(MultiTaskModule):
        ...     def forward_single_task(self, x, task_label):
        ...         return (task_label + 1) * x
        >>> Scaled()(torch.ones(3, 2), torch.tensor([0, 1, 0]))
        tensor([[1., 1.],
                [2., 2.],
                [1., 1.]])
    """

    def __init__(self, auto_adapt: bool = True) -> None:
        super().__init__(auto_adapt)
        self.told: Tensor | int | None = None

    def forward(self, x: Tensor, task_labels: Tensor | int | None = None) -> Tensor:
        """The output for each sample, by its own task.

        Args:
            x: Inputs, shape (B, ...).
            task_labels: One for each sample, shape (B,), or one for all. None: those that the loop has laid down in
                ``told`` (see ``ModelCall``), for a module inside a model that is called without any.

        Returns:
            Shape (B, C), where C is the largest of the tasks' widths; others are filled up with the dtype's lowest
            number.

        Raises:
            ValueError: No task labels, or not one for each sample.
        """
        labels = self.task_labels_for(x, task_labels)
        if isinstance(labels, int):
            return self.forward_single_task(x, labels)
        tasks = labels.unique().tolist()
        if len(tasks) == 1:
            return self.forward_single_task(x, tasks[0])
        rows = [(labels == task).nonzero().squeeze(1) for task in tasks]
        outputs = [self.forward_single_task(x[own], task) for own, task in zip(rows, tasks, strict=True)]
        widest = max(output.shape[1] for output in outputs)
        filled = [F.pad(output, (0, widest - output.shape[1]), value=lowest(output.dtype)) for output in outputs]
        return torch.cat(filled)[torch.cat(rows).argsort()]

    def forward_single_task(self, x: Tensor, task_label: int) -> Tensor:
        """The output for samples of one task, shape (B, C).

        Raises:
            NotImplementedError: The subclass leaves this and ``forward`` as they are.
        """
        raise NotImplementedError(f"{type(self).__name__} implements neither forward_single_task nor forward")

    def task_labels_for(self, x: Any, task_labels: Tensor | int | None) -> Tensor | int:
        """The task labels that count: those given, else those laid down.

        Raises:
            ValueError: There are none, or not one for each sample.
        """
        labels = self.told if task_labels is None else task_labels
        if labels is None:
            raise ValueError(
                f"{type(self).__name__} got no task labels: call it as model(x, task_labels); where it is part of a "
                "model that takes none, call that through rwalk.models.ModelCall"
            )
        if isinstance(labels, Tensor) and isinstance(x, Tensor) and labels.shape != x.shape[:1]:
            raise ValueError(f"expected one task label for each of {len(x)} samples, found shape {tuple(labels.shape)}")
        return labels


def adapt(model: nn.Module, experience: Any) -> None:
    """Let every dynamic module in a model adapt itself, outer ones first. Avalanche's modules count as well."""
    _adapt(unwrapped(model), experience, set(), outermost=True)


def is_dynamic(model: nn.Module) -> bool:
    """Whether there is a module to adapt in it."""
    return any(_adapts(module) for module in model.modules())


def _adapt(module: nn.Module, experience: Any, visited: set[nn.Module], *, outermost: bool) -> None:
    if module in visited:
        return
    visited.add(module)
    if _adapts(module):
        dynamic: Any = module
        if not outermost and not dynamic._auto_adapt:
            return
        dynamic.adaptation(experience)
    for child in list(module.children()):
        _adapt(child, experience, visited, outermost=False)


def _adapts(module: nn.Module) -> bool:
    if compiled(module) is not None:  # it answers to all the names of the module inside
        return False
    theirs = hasattr(module, "_auto_adapt") and callable(getattr(module, "adaptation", None))
    return isinstance(module, DynamicModule) or theirs
