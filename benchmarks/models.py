"""The networks that steps are measured on."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

__all__ = ["mlp", "size", "transformer", "wide"]


def size(model: nn.Module) -> int:
    """Number of parameters.

    Example:
        >>> size(mlp(784, 256, 256, 10))
        269322
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
