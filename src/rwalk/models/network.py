"""Features, and an output layer on them: how every network here is put together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from rwalk.models.dynamic import MultiTaskModule
from rwalk.models.multi_head import MultiTaskNetwork
from rwalk.module_state import in_eval_mode

__all__ = ["Features", "attach_head", "image_shape", "num_features_of", "with_classifier"]


class Features(nn.Sequential):
    """Layers that make features, shape (B, ``num_features``), of an input.

    Args:
        layers: In the order in which they are applied.
        num_features: Width of what the last one gives. None: not known, as after slicing.

    Example:
        >>> Features(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), num_features=8)(torch.ones(3, 2, 2)).shape
        torch.Size([3, 8])
    """

    def __init__(self, *layers: nn.Module, num_features: int | None = None) -> None:
        super().__init__(*layers)
        self.num_features = num_features


def with_classifier(layers: Sequence[nn.Module], num_features: int, n_classes: int) -> nn.Sequential:
    """Features with a linear layer for ``n_classes`` classes on them; with 0 classes, the features themselves.

    Raises:
        ValueError: ``n_classes`` is below 0.
    """
    if n_classes < 0:
        raise ValueError(f"n_classes={n_classes!r}: expected at least 1, or 0 for features without an output layer")
    features = Features(*layers, num_features=num_features)
    if n_classes == 0:
        return features
    return nn.Sequential(OrderedDict(features=features, classifier=nn.Linear(num_features, n_classes)))


def attach_head(features: nn.Module, head: nn.Module) -> nn.Module:
    """Put an output layer on features; it is called ``classifier`` in the result, and they ``features``.

    Args:
        features: Maps inputs to features, shape (B, D).
        head: Maps features to scores of classes. One that takes task labels gets those that the result is called with.

    Example:
        >>> from rwalk.models import MaskedClassifier
        >>> network = attach_head(nn.Flatten(), MaskedClassifier(4, n_classes=3))
        >>> network(torch.ones(5, 2, 2)).shape, [name for name, _ in network.named_children()]
        (torch.Size([5, 3]), ['features', 'classifier'])
    """
    if isinstance(head, MultiTaskModule):
        return MultiTaskNetwork(features, head)
    return nn.Sequential(OrderedDict(features=features, classifier=head))


def num_features_of(features: nn.Module, input_shape: Sequence[int]) -> int:
    """How many features a network gives: its ``num_features`` where it says so, else seen on a batch of zeros.

    Raises:
        ValueError: It does not say so and does not run on float32 zeros, or it gives no features, shape (B, D).
    """
    told = getattr(features, "num_features", None)
    if isinstance(told, int) and told > 0:
        return told
    name = type(features).__name__
    try:
        with torch.no_grad(), in_eval_mode(features):
            found = features(torch.zeros(1, *input_shape))
    except Exception as error:
        raise ValueError(
            f"cannot tell how many features {name} gives: it does not run on float32 zeros of shape "
            f"{(1, *input_shape)} ({str(error).splitlines()[0] if str(error) else type(error).__name__}); give it an "
            "attribute num_features"
        ) from error
    shape = tuple(getattr(found, "shape", ()))
    if len(shape) != 2 or shape[1] < 1:
        raise ValueError(
            f"{name} gives shape {shape} for one input: expected features (1, D) to put an output layer on"
        )
    return int(shape[1])


def image_shape(network: str, input_shape: Sequence[int], smallest: int = 1) -> tuple[int, int, int]:
    """The input shape as channels, height, width.

    Raises:
        ValueError: It is not that, or a side is below ``smallest``.
    """
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        raise ValueError(
            f"input_shape={tuple(input_shape)!r}: {network} takes images (channels, height, width) of at least "
            f"{smallest}×{smallest}; the network 'mlp' takes any shape"
        )
    channels, height, width = input_shape
    return channels, height, width
