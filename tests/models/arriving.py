"""Experiences without data, and naive twins of the heads."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def experience(*classes: int, task: int = 0) -> SimpleNamespace:
    """What a head looks at."""
    return SimpleNamespace(classes_in_this_experience=classes, task_labels=[task])


def features(count: int, width: int, seed: int = 0) -> Tensor:
    """Rows of random numbers."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def loss_over(scores: Tensor, labels: Tensor, classes: list[int]) -> Tensor:
    """Cross-entropy over a subset of the classes, with labels renumbered."""
    renumbered = torch.tensor([classes.index(int(label)) for label in labels])
    return F.cross_entropy(scores[:, classes], renumbered)


def answers_one_by_one(heads: dict[int, tuple[nn.Linear, list[int]]], x: Tensor, tasks: Tensor) -> list[int]:
    """The class that each sample's own head prefers, sample by sample."""
    answers = []
    for row, task in zip(x, tasks.tolist(), strict=True):
        linear, classes = heads[task]
        answers.append(classes[int((linear.weight @ row + linear.bias).argmax())])
    return answers
