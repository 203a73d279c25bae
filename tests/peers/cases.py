"""Models, streams and runs that Avalanche and rwalk are compared on."""

import random

import numpy as np
import torch
from avalanche.training.plugins import EvaluationPlugin as TheirEvaluation
from avalanche.training.supervised import Naive as TheirNaive
from torch import nn

from rwalk.streams import TensorData, class_incremental


def toy_benchmark(dtype=torch.float32, shape=(6,), per_class=12, experiences=3):
    """Gaussian blobs, six classes."""
    generator = torch.Generator().manual_seed(7)
    classes = 6
    centres = torch.randn(classes, *shape, generator=generator, dtype=torch.float64)
    labels = torch.arange(classes).repeat_interleave(per_class)
    noise = torch.randn(len(labels), *shape, generator=generator, dtype=torch.float64)
    data = TensorData((centres[labels] + 0.5 * noise).to(dtype), labels)
    return class_incremental("toy", data, data, experiences)


class TwoInputs(nn.Module):
    """Sees the features in two halves, each through a branch of its own."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(16, 6)

    def forward(self, x):
        return self.head(torch.tanh(torch.cat([self.left(x[:, :3]), self.right(x[:, 3:])], dim=1)))


class Tied(nn.Module):
    """One weight used in two layers."""

    def __init__(self):
        super().__init__()
        self.inner, self.again, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.again.weight = self.inner.weight

    def forward(self, x):
        return self.head(torch.tanh(self.again(torch.tanh(self.inner(x)))))


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 6))


def cnn():
    convolution = nn.Conv2d(1, 4, 3, padding=1)
    return nn.Sequential(convolution, nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 6))


MODELS = {"mlp": (mlp, (6,)), "cnn": (cnn, (1, 4, 4)), "two inputs": (TwoInputs, (6,)), "tied": (Tied, (6,))}

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.003),
}


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def their_strategy(model, optimizer, plugins, **options):
    settings = {"train_mb_size": 6, "train_epochs": 6, "eval_mb_size": 64, "evaluator": TheirEvaluation(), **options}
    return TheirNaive(model=model, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), plugins=plugins, **settings)


def accuracy(model, stream):
    model.eval()
    with torch.no_grad():
        return [float((model(e.dataset.x).argmax(1) == e.dataset.targets).float().mean()) for e in stream]
