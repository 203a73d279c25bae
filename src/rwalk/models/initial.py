"""Initial weights other than PyTorch's, as published experiments had them."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

from torch import nn

from rwalk.errors import closest

__all__ = ["INITIAL", "initialise"]


def _uniform_by_rows(layer: nn.Conv2d | nn.Linear) -> None:
    fan = layer.kernel_size[0] * layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
    bound = 1.0 / sqrt(fan)
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.uniform_(layer.bias, -bound, bound)


def _truncated_normal(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, 0.1)


#: By name: what is done to each convolution and linear layer.
INITIAL: dict[str, Callable[[nn.Conv2d | nn.Linear], None]] = {
    "torch": lambda layer: None,  # noqa: ARG005
    "uniform-by-rows": _uniform_by_rows,
    "truncated-normal": _truncated_normal,
}


def initialise(network: nn.Module, name: str) -> None:
    r"""Draw the weights of a network's convolutions and linear layers anew.

    Args:
        network: Changed in place; an output layer that is put on later is not reached.
        name: ``"torch"`` leaves them as they are. ``"uniform-by-rows"``: weights and biases uniform within
            :math:`\pm 1/\sqrt{k C}` for ``C`` input channels and kernels ``k`` wide, where PyTorch has
            :math:`\pm 1/\sqrt{k^2 C}`; A-GEM's ResNet. ``"truncated-normal"``: standard deviation 0.1, cut at 0.2, and
            biases 0.1; the networks of RWalk's authors otherwise.

    Raises:
        ValueError: An unknown name.

    Note:
        Before a batch normalization the size of weights changes no output, but what a step does: a gradient is as much
        smaller as its weights are larger, and the direction of weights that are :math:`\sqrt 3` times larger turns by a
        third.
    """
    if name not in INITIAL:
        raise ValueError(f"initial={name!r}{closest(name, INITIAL)}: choose one of {', '.join(INITIAL)}")
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            INITIAL[name](layer)
