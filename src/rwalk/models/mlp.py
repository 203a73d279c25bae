"""Multi-layer perceptrons."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import nn

from rwalk.models.network import with_classifier

__all__ = ["dense_layers", "mlp"]


def mlp(input_shape: Sequence[int], n_classes: int, hidden: Sequence[int] = (256, 256)) -> nn.Sequential:
    """A multi-layer perceptron with ReLU; the paper's MNIST network with its default widths.

    Args:
        input_shape: Shape of one input; it is flattened.
        n_classes: Number of classes; 0 for features only.
        hidden: Widths of the hidden layers.

    Raises:
        ValueError: ``input_shape`` is empty.

    Example:
        >>> sum(parameter.numel() for parameter in mlp((1, 28, 28), 10).parameters())
        269322
    """
    if not len(input_shape):
        raise ValueError(
            "input_shape=(): mlp takes inputs that are one array each, such as (64,); a benchmark whose samples hold "
            "several, or none, needs a model of your own"
        )
    widths = [prod(input_shape), *hidden]
    return with_classifier([nn.Flatten(), *dense_layers(widths)], widths[-1], n_classes)


def dense_layers(widths: Sequence[int]) -> list[nn.Module]:
    """Linear layers between these widths, each followed by ReLU."""
    return [layer for inputs, width in pairwise(widths) for layer in (nn.Linear(inputs, width), nn.ReLU())]
