"""Networks and data for the samplers that look at a model."""

import torch
from torch import nn
from torch.utils.data import TensorDataset


class Tail(nn.Module):
    """A body, an activation in place, a classifier; and layers that are not what a sampler hopes for."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Dropout(0.5))
        self.classify = nn.Linear(6, 3)
        self.recurrent = nn.GRU(4, 5, batch_first=True)
        self.total = nn.Flatten(0)
        self.unused = nn.Linear(4, 2)

    def forward(self, x):
        self.recurrent(x[:, None])
        self.total(x)
        return self.classify(input=self.body(x))


def trained_looking(seed=0):
    """A ``Tail`` whose BatchNorm has seen data, in train mode."""
    torch.manual_seed(seed)
    model = Tail()
    model(torch.randn(50, 4))
    return model


def points(count, classes=3, seed=0):
    """Random samples and their labels."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    return TensorDataset(torch.randn(count, 4, generator=generator), y), y
