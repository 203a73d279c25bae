"""A network for text that has been turned into numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rwalk.models.mlp import dense_layers
from rwalk.models.network import with_classifier

__all__ = ["text_mlp"]


def text_mlp(
    input_shape: Sequence[int],
    n_classes: int,
    vocabulary: int = 20_000,
    width: int = 64,
    hidden: Sequence[int] = (64,),
    padding: int = 0,
) -> nn.Sequential:
    """The mean of token embeddings, then a multi-layer perceptron with ReLU.

    Args:
        input_shape: ``(L,)``, tokens in a text. Inputs are token ids, shape (B, L), int64.
        n_classes: Number of classes; 0 for features only.
        vocabulary: Number of token ids; they go from 0 to one less.
        width: Width of an embedding.
        hidden: Widths of the hidden layers.
        padding: The id that fills up short texts; it is left out of the mean.

    Raises:
        ValueError: ``input_shape`` has more than one dimension; or in a forward pass, inputs that are no token ids, or
            an id outside the vocabulary.

    Example:
        >>> network = text_mlp((6,), 4, vocabulary=100)
        >>> network(torch.tensor([[5, 7, 99, 0, 0, 0]])).shape
        torch.Size([1, 4])
    """
    if len(input_shape) != 1:
        raise ValueError(f"input_shape={tuple(input_shape)!r}: text-mlp takes token ids, shape (tokens in a text,)")
    widths = [width, *hidden]
    layers = [_TokenBag(vocabulary, width, mode="mean", padding_idx=padding), *dense_layers(widths)]
    return with_classifier(layers, widths[-1], n_classes)


class _TokenBag(nn.EmbeddingBag):
    """Names what has no embedding, where torch's own error does not say which input it was."""

    def forward(self, tokens: Tensor) -> Tensor:  # type: ignore[override]  # the bag is a row
        if tokens.is_floating_point():
            raise ValueError(
                f"inputs of {tokens.dtype}: text-mlp takes token ids, whole numbers; 'mlp' takes any numbers"
            )
        try:
            return super().forward(tokens)
        except (IndexError, RuntimeError) as error:
            low, high = (int(end) for end in torch.aminmax(tokens))
            if 0 <= low <= high < self.num_embeddings:
                raise
            raise ValueError(
                f"token ids go from {low} to {high}, but the vocabulary has {self.num_embeddings} (ids 0 to "
                f"{self.num_embeddings - 1}): give text-mlp vocabulary={high + 1} or more"
            ) from error
