"""A run in the middle of its second task, for the tests of state files."""

import torch

from reference.problems import tanh_net, train
from rwalk import RWalk, RWalkConfig

CONFIG = RWalkConfig(ewc_lambda=2.0, delta_t=4, damping=1e-3, exclude=("nothing.*",))


def walk(model=None, config=CONFIG):
    model = model if model is not None else tanh_net(dtype=torch.float32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return model, optimizer, RWalk(model, optimizer, config)


def learned_walk():
    """One task consolidated, the next in the middle of a window."""
    model, optimizer, rwalk = walk()
    train(model, optimizer, 0, 10, torch.float32)
    rwalk.consolidate()
    train(model, optimizer, 1, 6, torch.float32)
    return model, optimizer, rwalk
