"""Residual networks for small images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rwalk.models.initial import initialise
from rwalk.models.network import image_shape, with_classifier

__all__ = ["resnet18", "resnet32", "slim_resnet18"]

Shortcut = Callable[[int, int, int], nn.Module]


def resnet18(
    input_shape: Sequence[int], n_classes: int, width: int = 64, initial: str = "torch", eps: float = 1e-5
) -> nn.Sequential:
    """ResNet-18 with a 3×3 first convolution and no pooling before the last, for images of about 32×32.

    Args:
        input_shape: Channels, height, width.
        n_classes: Number of classes; 0 for features only.
        width: Channels of the first stage, doubled in each of the other three.
        initial: Initial weights, see ``rwalk.models.initial``.
        eps: What batch normalization adds to a variance.

    Raises:
        ValueError: ``input_shape`` is not that of an image, or ``initial`` is unknown.

    Example:
        >>> sum(parameter.numel() for parameter in resnet18((3, 32, 32), 10).parameters())
        11173962

    References:
        He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016, arXiv:1512.03385.
    """
    stages = [(width * 2**stage, 2) for stage in range(4)]
    network = _resnet("resnet18", input_shape, n_classes, stages, _projection)
    initialise(network, initial)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = eps
    return network


def slim_resnet18(
    input_shape: Sequence[int], n_classes: int, width: int = 20, initial: str = "torch", eps: float = 1e-5
) -> nn.Sequential:
    """ResNet-18 with 20 channels in the first stage, as GEM and A-GEM use it; arguments are those of ``resnet18``.

    Example:
        >>> sum(parameter.numel() for parameter in slim_resnet18((3, 32, 32), 10).parameters())
        1094750

    References:
        Lopez-Paz and Ranzato, *Gradient Episodic Memory for Continual Learning*, NeurIPS 2017, arXiv:1706.08840.
    """
    return resnet18(input_shape, n_classes, width, initial, eps)


def resnet32(input_shape: Sequence[int], n_classes: int, width: int = 16) -> nn.Sequential:
    """The 32-layer ResNet for CIFAR: three stages of five blocks, shortcuts without parameters.

    Args:
        input_shape: Channels, height, width.
        n_classes: Number of classes; 0 for features only.
        width: Channels of the first stage, doubled in each of the other two.

    Raises:
        ValueError: ``input_shape`` is not that of an image.

    Example:
        >>> sum(parameter.numel() for parameter in resnet32((3, 32, 32), 10).parameters())
        464154

    References:
        He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016, arXiv:1512.03385, section 4.2.
    """
    stages = [(width * 2**stage, 5) for stage in range(3)]
    return _resnet("resnet32", input_shape, n_classes, stages, _Padding)


class _Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Shortcut) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(inputs, outputs, 3, stride), nn.ReLU(), *_convolution(outputs, outputs))
        changes = inputs != outputs or stride != 1
        self.shortcut = shortcut(inputs, outputs, stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class _Padding(nn.Module):
    """Every second pixel, with channels of zeros behind the others."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.missing, self.stride = outputs - inputs, stride

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x[..., :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(*_convolution(inputs, outputs, 1, stride))


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


def _resnet(
    name: str, input_shape: Sequence[int], n_classes: int, stages: Sequence[tuple[int, int]], shortcut: Shortcut
) -> nn.Sequential:
    inputs, _, _ = image_shape(name, input_shape)
    channels = stages[0][0]
    layers: list[nn.Module] = [*_convolution(inputs, channels), nn.ReLU()]
    for stage, (outputs, blocks) in enumerate(stages):
        for block in range(blocks):
            layers.append(_Block(channels, outputs, 2 if stage and not block else 1, shortcut))
            channels = outputs
    return with_classifier([*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()], channels, n_classes)
