"""The convolutional network of the paper's CIFAR-100 experiments."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from rwalk.models.network import image_shape, with_classifier

__all__ = ["paper_cnn"]


def paper_cnn(
    input_shape: Sequence[int], n_classes: int, channels: Sequence[int] = (32, 32, 64, 64), dropout: float = 0.5
) -> nn.Sequential:
    """Four 3×3 convolutions with ReLU, max-pooling and dropout after every second one, and one linear layer.

    Args:
        input_shape: Channels, height, width.
        n_classes: Number of classes; 0 for features only.
        channels: What each convolution gives.
        dropout: Probability of dropping an element after pooling.

    Raises:
        ValueError: No image, one too small to be pooled, or an odd number of convolutions.

    Example:
        >>> sum(parameter.numel() for parameter in paper_cnn((3, 32, 32), 100).parameters())
        475268

    Note:
        As in the authors' code for A-GEM (``conv_feedforward``); there the input keeps its size in each convolution
        and pooling halves it, rounding up, where we round down.

    References:
        Chaudhry et al., *Riemannian Walk for Incremental Learning*, ECCV 2018, arXiv:1801.10112.
    """
    if not channels or len(channels) % 2:
        raise ValueError(f"channels={tuple(channels)!r}: expected an even number of convolutions, two to each pooling")
    pairs = len(channels) // 2
    inputs, height, width = image_shape("paper-cnn", input_shape, smallest=2**pairs)
    layers: list[nn.Module] = []
    for first, second in zip(channels[::2], channels[1::2], strict=True):
        for ins, outs in ((inputs, first), (first, second)):
            layers += [nn.Conv2d(ins, outs, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2), nn.Dropout(dropout)]
        inputs = second
    wide = inputs * (height >> pairs) * (width >> pairs)
    return with_classifier([*layers, nn.Flatten()], wide, n_classes)
