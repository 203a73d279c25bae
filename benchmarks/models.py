"""The networks that steps are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["mlp", "resnet18", "size", "transformer", "wide"]


def size(model: nn.Module) -> int:
    """Number of parameters.

    Example:
        >>> size(mlp(784, 256, 256, 10)), size(resnet18(20)), size(resnet18(64))
        (269322, 1094750, 11173962)
    """
    return sum(parameter.numel() for parameter in model.parameters())


def mlp(*widths: int) -> nn.Sequential:
    """A multi-layer perceptron with ReLU."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def wide(parameters: int, width: int = 2048) -> nn.Sequential:
    """Square layers, as many as it takes: much memory for little arithmetic when the batch is small.

    Args:
        parameters: About how many.
        width: Inputs and outputs of each layer.
    """
    depth = max(1, round(parameters / (width * (width + 1))))
    return nn.Sequential(*(layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.Tanh())))


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_convolution(inputs, outputs, 3, stride), nn.ReLU(), *_convolution(outputs, outputs))
        changes = inputs != outputs or stride != 1
        self.shortcut = nn.Sequential(*_convolution(inputs, outputs, 1, stride) if changes else ())

    def forward(self, x: Tensor) -> Tensor:
        """Images in, images out."""
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet18(base: int = 64, classes: int = 10) -> nn.Sequential:
    """ResNet-18 for 32×32 images.

    Args:
        base: Channels of the first stage, doubled in each of the three others; 20 is the slim one of GEM.
        classes: Outputs.
    """
    layers: list[nn.Module] = [*_convolution(3, base), nn.ReLU()]
    channels = base
    for stage in range(4):
        outputs = base * 2**stage
        layers += [Block(channels, outputs, 1 + (stage > 0)), Block(outputs, outputs, 1)]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> Sequence[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


class TokenClassifier(nn.Module):
    """Embedding, transformer encoder, mean over positions, output layer."""

    def __init__(self, vocabulary: int, width: int, depth: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        layer = nn.TransformerEncoderLayer(width, width // 64, 4 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens, shape (B, T), to scores of classes, shape (B, C)."""
        return self.head(self.encoder(self.embedding(tokens)).mean(dim=1))


def transformer(vocabulary: int = 512, width: int = 384, depth: int = 6, classes: int = 10) -> TokenClassifier:
    """A small transformer; 10.8 million parameters with the defaults."""
    return TokenClassifier(vocabulary, width, depth, classes)
