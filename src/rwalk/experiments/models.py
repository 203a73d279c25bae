"""The networks of the experiments."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

__all__ = ["mlp"]


def mlp(input_shape: Sequence[int], outputs: int, hidden: Sequence[int] = (256, 256)) -> nn.Sequential:
    """A multi-layer perceptron with ReLU; the paper's MNIST network with its default widths.

    Args:
        input_shape: Shape of one input; it is flattened.
        outputs: Number of classes.
        hidden: Widths of the hidden layers.

    Example:
        >>> sum(parameter.numel() for parameter in mlp((1, 28, 28), 10).parameters())
        269322
    """
    widths = [prod(input_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, width in pairwise(widths):
        layers += [nn.Linear(inputs, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))
