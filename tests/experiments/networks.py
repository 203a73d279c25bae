"""Networks by import path, as a user would write them; some of them misbehave."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import torch
from torch import nn


def plain(input_shape, n_classes, width=8):
    """Features of a given width, with an output layer if there are classes."""
    layers = [nn.Linear(input_shape[0], width), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.Linear(width, n_classes)] if n_classes else []))


def counted(input_shape, n_classes, log, seconds=0.0):
    """A network that leaves a line in a file whenever it is built, and takes its time."""
    with Path(log).open("a") as file:
        file.write("built\n")
    time.sleep(seconds)
    return plain(input_shape, n_classes)


class Dying(nn.Module):
    """Kills its own process in the middle of training, under one seed."""

    def __init__(self, inner, seed):
        super().__init__()
        self.inner, self.seed, self.batches = inner, seed, 0

    def forward(self, x):
        self.batches += self.training
        if self.batches > 5 and torch.initial_seed() == self.seed:
            if multiprocessing.parent_process() is None:
                raise RuntimeError("would kill the process that runs the tests")
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner(x)


def dying(input_shape, n_classes, seed):
    """See ``Dying``."""
    return Dying(plain(input_shape, n_classes), seed)


class Failing(nn.Module):
    """Raises in the middle of training, under one seed."""

    def __init__(self, inner, seed):
        super().__init__()
        self.inner, self.seed, self.batches = inner, seed, 0

    def forward(self, x):
        self.batches += self.training
        if self.batches > 5 and torch.initial_seed() == self.seed:
            raise ArithmeticError("in the middle of it\nand a second line")
        return self.inner(x)


def failing(input_shape, n_classes, seed):
    """See ``Failing``."""
    return Failing(plain(input_shape, n_classes), seed)
