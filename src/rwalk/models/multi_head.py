"""An output layer for each task, chosen by task label."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset

from rwalk.models.dynamic import MultiTaskModule
from rwalk.models.growing import grow
from rwalk.models.masking import lowest

__all__ = ["MultiHeadClassifier", "MultiTaskNetwork", "TaskHead", "classes_by_task"]


class TaskHead(nn.Linear):
    """A linear layer for the classes of one task.

    Args:
        in_features: Width of the features.
        classes: Class labels, one for each row.

    Attributes:
        classes: The class label of each row, shape (rows,), int64; a buffer.
    """

    classes: Tensor

    def __init__(self, in_features: int, classes: list[int]) -> None:
        super().__init__(in_features, len(classes))
        self.register_buffer("classes", torch.tensor(classes, dtype=torch.int64))

    def extend(self, classes: list[int]) -> None:
        """Add a row for each class that has none yet."""
        has = self.classes.tolist()
        more = [label for label in classes if label not in has]
        if more:
            grow(self, self.out_features + len(more))
            self.classes = torch.cat([self.classes, self.classes.new_tensor(more)])


class MultiHeadClassifier(MultiTaskModule):
    """Separate linear output layers, one for each task label, over that task's classes only.

    Outputs are numbered by class label over all tasks, and everything outside a sample's own task is the dtype's lowest
    number. So the ordinary cross-entropy and accuracy are those within the task. Heads of tasks that are not in a batch
    have no gradient at all. A head is made when its task first arrives in train mode. A task that is evaluated before
    that scores its classes equally. A state dict with more heads or rows is loaded by making them first.

    Args:
        in_features: Width of the features.
        n_classes: Number of outputs; as many as the labels seen need, if None.

    Raises:
        ValueError: An experience has a class ≥ ``n_classes``, or several tasks that its data does not tell apart; in a
            forward pass, a task that has not arrived yet.
        RWalkError: A head has to grow, and its parameters are sharded over processes.

    Attributes:
        classifiers: ``TaskHead`` by task label, as a string.

    Example:
        >>> from types import SimpleNamespace
        >>> head = MultiHeadClassifier(3, n_classes=4)
        >>> for task, classes in enumerate([(0, 1), (2, 3)]):
        ...     head.adaptation(SimpleNamespace(classes_in_this_experience=classes, task_labels=[task]))
        >>> head(torch.randn(2, 3), torch.tensor([1, 0])).argmax(dim=1) // 2
        tensor([1, 0])
    """

    _like: Tensor

    def __init__(self, in_features: int, n_classes: int | None = None) -> None:
        super().__init__()
        self.in_features, self.n_classes = in_features, n_classes
        self.classifiers = nn.ModuleDict()
        self._outputs = n_classes or 0
        self._evaluated: dict[int, list[int]] = {}
        self.register_buffer("_like", torch.empty(0), persistent=False)  # tells new heads their device and dtype

    @property
    def weight(self) -> Tensor:
        """The row of each class, shape (outputs, ``in_features``); a class of several tasks has the newest head's.

        Where a sampler of exemplars asks for a class's row, this module can be named as the classification layer.
        """
        weight: Tensor = self._like.new_zeros(self._outputs, self.in_features)
        for head in cast("Iterable[TaskHead]", self.classifiers.values()):
            weight = weight.index_copy(0, head.classes, head.weight)
        return weight

    def adaptation(self, experience: Any) -> None:
        """In train mode: make heads, or let them grow. In eval mode: note the classes of tasks that may have none."""
        arriving = classes_by_task(experience)
        largest = max(max(classes) for classes in arriving.values())
        if self.n_classes is not None and largest >= self.n_classes:
            raise ValueError(
                f"the experience has class {largest}, but the output layer has {self.n_classes} outputs: build it with "
                f"n_classes={largest + 1}"
            )
        if not self.training:
            self._evaluated = arriving
            return
        for task, classes in arriving.items():
            self._make_room(task, classes)

    def forward_single_task(self, x: Tensor, task_label: int) -> Tensor:
        """Scores of classes, shape (B, outputs), of features (B, ``in_features``) of one task."""
        head = self._head(task_label)
        outputs = self._outputs
        if not self.training:
            outputs = max(outputs, *(max(classes) + 1 for classes in self._evaluated.values()), 0)
        if head is not None:
            classes, own = head.classes, head(x)
        elif not self.training and task_label in self._evaluated:
            classes = torch.tensor(self._evaluated[task_label], device=x.device)
            own = x.new_zeros(len(x), len(classes))
        else:
            raise ValueError(
                f"no head for task {task_label} (there are heads for: {', '.join(self.classifiers) or 'none'}): call "
                "adaptation(experience) in train mode before the task's first batch"
            )
        masked: Tensor = own.new_full((len(own), outputs), lowest(own.dtype))
        return masked.index_copy(1, classes, own)

    def _head(self, task: int) -> TaskHead | None:
        key = str(task)
        return cast("TaskHead", self.classifiers[key]) if key in self.classifiers else None

    def _make_room(self, task: int, classes: list[int]) -> None:
        head = self._head(task)
        if head is None:
            self.classifiers[str(task)] = TaskHead(self.in_features, classes).to(self._like)
        else:
            head.extend(classes)
        self._outputs = max(self._outputs, max(classes) + 1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        before, after = f"{prefix}classifiers.", ".classes"
        with torch.random.fork_rng([]):
            for key, classes in state_dict.items():
                if key.startswith(before) and key.endswith(after):
                    self._make_room(int(key[len(before) : -len(after)]), classes.tolist())
        super()._load_from_state_dict(state_dict, prefix, *args)


class MultiTaskNetwork(MultiTaskModule):
    """Features, and an output layer that takes task labels.

    Args:
        features: Maps inputs to features, shape (B, D); it is not told of tasks.
        classifier: Maps features and task labels to scores of classes.

    Example:
        >>> from types import SimpleNamespace
        >>> network = MultiTaskNetwork(nn.Flatten(), MultiHeadClassifier(4))
        >>> network.classifier.adaptation(SimpleNamespace(classes_in_this_experience=(0, 1, 2), task_labels=[0]))
        >>> network(torch.ones(5, 2, 2), torch.zeros(5, dtype=torch.int64)).shape
        torch.Size([5, 3])
    """

    def __init__(self, features: nn.Module, classifier: MultiTaskModule) -> None:
        super().__init__()
        self.features, self.classifier = features, classifier

    def forward(self, x: Any, task_labels: Tensor | int | None = None) -> Tensor:
        """Scores of classes, shape (B, C), of inputs under their task labels, shape (B,) or one for all."""
        labels = self.task_labels_for(x, task_labels)
        scores: Tensor = self.classifier(self.features(x), labels)
        return scores


def classes_by_task(experience: Any) -> dict[int, list[int]]:
    """Class labels of each task of an experience, ascending.

    The samples' own task labels count where they are in memory, so that data of several tasks can be told apart; else
    all samples belong to the experience's one task.

    Raises:
        ValueError: Several tasks that cannot be told apart.
    """
    found = _labels_in_memory(getattr(experience, "dataset", None))
    if found is not None:
        return {
            task: sorted({label for tasks, labels in found for label in labels[tasks == task].unique().tolist()})
            for task in sorted({task for tasks, _ in found for task in tasks.unique().tolist()})
        }
    tasks = sorted(set(getattr(experience, "task_labels", (0,))))
    if len(tasks) != 1:
        raise ValueError(
            f"the experience has tasks {tasks}, and its data ({type(experience.dataset).__name__}) does not say which "
            "class belongs to which: give it tensors `targets` and `task_labels`, as rwalk.streams.TensorData has"
        )
    return {int(tasks[0]): sorted(map(int, experience.classes_in_this_experience))}


def _labels_in_memory(dataset: Dataset[Any] | None) -> list[tuple[Tensor, Tensor]] | None:
    if isinstance(dataset, ConcatDataset):
        parts = [_labels_in_memory(part) for part in dataset.datasets]
        held = [part for part in parts if part is not None]
        return [pair for part in held for pair in part] if len(held) == len(parts) else None
    tasks, labels = getattr(dataset, "task_labels", None), getattr(dataset, "targets", None)
    return [(tasks, labels)] if isinstance(tasks, Tensor) and isinstance(labels, Tensor) else None
