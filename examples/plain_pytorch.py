"""A training loop that you have, and two lines of RWalk.

Run it: python examples/plain_pytorch.py
"""

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset
from two_tasks import Accuracies, accuracy, compare, network, two_tasks

from rwalk import RWalk, RWalkConfig

CONFIG = RWalkConfig(ewc_lambda=0.3, ewc_alpha=0.01, alpha_warmup=True)  # λ was chosen on other seeds


def train(model: nn.Module, optimizer: Optimizer, data: TensorDataset) -> None:
    """Your loop. It knows nothing of RWalk."""
    for _ in range(10):
        for images, labels in DataLoader(data, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()


def run(seed: int, protected: bool) -> Accuracies:
    """Learn A, then B; accuracy on A after A, on A after B and on B after B."""
    (train_a, test_a), (train_b, test_b) = two_tasks(seed)
    model = network(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    rwalk = RWalk(model, optimizer, CONFIG) if protected else None  # line one

    train(model, optimizer, train_a)
    if rwalk:
        rwalk.consolidate()  # line two: a task ends
    after_a = accuracy(model, test_a)

    train(model, optimizer, train_b)
    return after_a, accuracy(model, test_a), accuracy(model, test_b)


if __name__ == "__main__":
    compare(run)
