"""The convolutional network of the paper's CIFAR-100 experiments."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from rwalk.models.images import Centred, RandomFlip, RandomShift
from rwalk.models.initial import initialise
from rwalk.models.network import image_shape, with_classifier

__all__ = ["paper_cnn"]


def paper_cnn(
    input_shape: Sequence[int],
    n_classes: int,
    channels: Sequence[int] = (32, 32, 64, 64),
    dropout: float = 0.5,
    mean: Sequence[float] = (),
    initial: str = "torch",
    flip: bool = False,
    shift: int = 0,
) -> nn.Sequential:
    """3×3 convolutions with ReLU, max-pooling and dropout after every second one, and one linear layer.

    Args:
        input_shape: Channels, height, width.
        n_classes: Number of classes; 0 for features only.
        channels: What each convolution gives: in the paper four of them. The authors' first published code has a fifth
            of 512, after which nothing is pooled.
        dropout: Probability of dropping an element after pooling.
        mean: Subtracted from each of the input's channels first; nothing if empty.
        initial: Initial weights, see ``rwalk.models.initial``.
        flip: Turn every second image left to right while training, drawn anew each time: more of few images, as the
            usual augmentation of CIFAR does, but not the paper.
        shift: Move each image by up to so many pixels along each axis while training, drawn anew each time; as usual
            (with 4), and not in the paper. What comes in at an edge mirrors what lies beside it.

    Raises:
        ValueError: No image, one too small to be pooled or moved so far, fewer than two convolutions, not one mean a
            channel, a negative ``shift``, or an unknown ``initial``.

    Example:
        >>> sum(parameter.numel() for parameter in paper_cnn((3, 32, 32), 100).parameters())
        475268

    Note:
        As in the authors' code for A-GEM (``conv_feedforward``); there the input keeps its size in each convolution
        and pooling halves it, rounding up, where we round down.

    References:
        Chaudhry et al., *Riemannian Walk for Incremental Learning*, ECCV 2018, arXiv:1801.10112.
    """
    if len(channels) < 2:
        raise ValueError(f"channels={tuple(channels)!r}: expected two or more convolutions")
    pairs = len(channels) // 2
    inputs, height, width = image_shape("paper-cnn", input_shape, smallest=2**pairs)
    if len(mean) not in (0, inputs):
        raise ValueError(f"mean={tuple(mean)!r}: expected a number for each of {inputs} channels, or none")
    if not 0 <= shift < min(height, width):
        raise ValueError(f"shift={shift!r}: expected a number of pixels from 0 to {min(height, width) - 1}")
    layers: list[nn.Module] = [RandomFlip()] if flip else []
    layers += [RandomShift(shift)] if shift else []
    layers += [Centred(mean)] if mean else []
    for index, outputs in enumerate(channels):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        if index % 2:
            layers += [nn.MaxPool2d(2), nn.Dropout(dropout)]
        inputs = outputs
    wide = inputs * (height >> pairs) * (width >> pairs)
    network = with_classifier([*layers, nn.Flatten()], wide, n_classes)
    initialise(network, initial)
    return network
