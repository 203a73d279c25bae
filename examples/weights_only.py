"""A network whose training nobody watched: its weights, and 300 unlabelled images of what it knows.

Run it: python examples/weights_only.py
"""

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from two_tasks import Accuracies, accuracy, compare, network, two_tasks

from rwalk import RWalk, RWalkConfig

CONFIG = RWalkConfig(ewc_lambda=3.0)  # chosen on other seeds
IMAGES = 300


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: TensorDataset) -> None:
    """Your loop. It knows nothing of RWalk."""
    for _ in range(10):
        for images, labels in DataLoader(data, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()


def pretrained(seed: int, data: TensorDataset) -> nn.Module:
    """What you got from elsewhere."""
    model = network(seed)
    train(model, torch.optim.Adam(model.parameters(), lr=2e-3), data)
    return model


def some_images(data: TensorDataset) -> list[Tensor]:
    """Batches of inputs; no labels."""
    images: Tensor = data.tensors[0]
    return list(images[:IMAGES].split(100))


def run(seed: int, protected: bool) -> Accuracies:
    """Learn B with weights that know A; accuracy on A before, on A after B and on B after B."""
    (train_a, test_a), (train_b, test_b) = two_tasks(seed)
    model = pretrained(seed, train_a)
    before = accuracy(model, test_a)

    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    if protected:
        rwalk = RWalk(model, optimizer, CONFIG)  # line one
        rwalk.protect(some_images(train_a))  # line two: hold what matters for these

    train(model, optimizer, train_b)
    return before, accuracy(model, test_a), accuracy(model, test_b)


if __name__ == "__main__":
    compare(run)
