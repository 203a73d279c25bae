"""A stream without task boundaries: what has been learned is kept every so many steps, wherever the stream is by then.

Run it: python examples/task_free.py
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset
from two_tasks import Accuracies, accuracy, compare, network, two_tasks

from rwalk import RWalk, RWalkConfig

CONFIG = RWalkConfig(ewc_lambda=0.15, ewc_alpha=0.01, alpha_warmup=True)
EVERY = 300  # steps; task A turns into task B after 400, which nobody tells RWalk


def stream(data: TensorDataset) -> Iterator[Any]:
    """What arrives."""
    for _ in range(10):
        yield from DataLoader(data, batch_size=32, shuffle=True)


def learn(model: nn.Module, optimizer: Optimizer, arriving: Iterator[Any], rwalk: RWalk | None) -> None:
    """A loop that does not know what it is learning."""
    for images, labels in arriving:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if rwalk and rwalk.task_steps == EVERY:
            rwalk.consolidate()


def run(seed: int, protected: bool) -> Accuracies:
    """The stream changes from A to B; accuracy on A before that, and on A and B at the end."""
    (train_a, test_a), (train_b, test_b) = two_tasks(seed)
    model = network(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    rwalk = RWalk(model, optimizer, CONFIG) if protected else None

    learn(model, optimizer, stream(train_a), rwalk)
    after_a = accuracy(model, test_a)
    learn(model, optimizer, stream(train_b), rwalk)
    return after_a, accuracy(model, test_a), accuracy(model, test_b)


if __name__ == "__main__":
    compare(run)
