"""A small network with a task behind it and some steps of the next, for what RWalk says of itself."""

import torch
from torch import nn

from rwalk import RWalk, RWalkConfig


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def train(model, optimizer, steps, seed=0, shift=0.0):
    rng = torch.Generator().manual_seed(seed)
    loss = torch.zeros(())
    for _ in range(steps):
        x = torch.randn(8, 5, generator=rng, dtype=torch.float64) + shift
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), x[:, :3].argmax(1))
        loss.backward()
        optimizer.step()
    return loss


def walked(backend="eager", steps=12, optimizer=torch.optim.Adam, lr=0.02, **settings):
    """A model with one task behind it and some steps of the next."""
    model = network()
    moving = optimizer(model.parameters(), lr=lr)
    rwalk = RWalk(model, moving, RWalkConfig(backend=backend, **{"ewc_lambda": 0.5, **settings}))
    train(model, moving, 30)
    rwalk.consolidate()
    loss = train(model, moving, steps, seed=1, shift=1.0)
    return model, moving, rwalk, loss
