"""Linear layers that get more outputs."""

from __future__ import annotations

import torch
from torch import nn

from rwalk.errors import RWalkError

__all__ = ["grow"]


@torch.no_grad()
def grow(linear: nn.Linear, out_features: int) -> None:
    """Give a linear layer more outputs; those that it has stay bit for bit.

    The layer gets new parameters, because graphs of past losses may still refer to the old ones' shape. An optimizer
    has to follow: the training templates see to that, ``rwalk.training.adapt_model`` does in a loop of your own. New
    rows are drawn as ``nn.Linear`` draws them, on the CPU, so that a seed gives the same ones on every device.

    Args:
        linear: The layer, changed in place.
        out_features: How many outputs it shall have; nothing happens if it has as many already.

    Raises:
        RWalkError: Its parameters are sharded over processes.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> old = layer.weight.clone()
        >>> grow(layer, 4)
        >>> layer, torch.equal(layer.weight[:2], old)
        (Linear(in_features=3, out_features=4, bias=True), True)
    """
    more = out_features - linear.out_features
    if more <= 0:
        return
    parameters = dict(linear.named_parameters(recurse=False))
    if any(hasattr(parameter, "placements") for parameter in parameters.values()):
        raise RWalkError(
            "a sharded output layer cannot grow: give it all its outputs before the model is sharded "
            "(initial_out_features of IncrementalClassifier, or heads='masked')"
        )
    fresh = nn.Linear(linear.in_features, more, bias=linear.bias is not None)
    for name, parameter in parameters.items():
        rows = torch.cat([parameter.detach(), getattr(fresh, name).to(parameter)])
        setattr(linear, name, nn.Parameter(rows, requires_grad=parameter.requires_grad))
    linear.out_features = out_features
