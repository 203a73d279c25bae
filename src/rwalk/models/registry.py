"""Networks and heads by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from rwalk.errors import closest
from rwalk.models.cnn import paper_cnn
from rwalk.models.current_head import CurrentClassifier
from rwalk.models.importing import import_function
from rwalk.models.mlp import mlp
from rwalk.models.multi_head import MultiHeadClassifier
from rwalk.models.network import attach_head, num_features_of
from rwalk.models.resnet import resnet18, resnet32, slim_resnet18
from rwalk.models.single_head import IncrementalClassifier, MaskedClassifier
from rwalk.models.text import text_mlp

__all__ = ["HEADS", "MODELS", "build_model", "find_builder"]

Builder = Callable[..., nn.Module]

#: Called as ``builder(input_shape, n_classes, **options)``; with 0 classes they give features.
MODELS: dict[str, Builder] = {
    "mlp": mlp,
    "paper-cnn": paper_cnn,
    "resnet18": resnet18,
    "slim-resnet18": slim_resnet18,
    "resnet32": resnet32,
    "text-mlp": text_mlp,
}

#: Called as ``builder(in_features, n_classes)``.
HEADS: dict[str, Callable[[int, int], nn.Module]] = {
    "single": nn.Linear,
    "masked": MaskedClassifier,
    "current": CurrentClassifier,
    "multi": MultiHeadClassifier,
    "growing": lambda in_features, n_classes: IncrementalClassifier(in_features, min(2, n_classes)),
}


def build_model(
    name: str, input_shape: Sequence[int], n_classes: int, heads: str = "single", **options: Any
) -> nn.Module:
    """Build a network by name, with the output layer that a protocol asks for.

    Args:
        name: One of ``MODELS``, or the import path ``package.module:function`` of a function that is called in the same
            way: ``function(input_shape, n_classes, **options)``, with ``n_classes=0`` where the output layer is put on
            here. Its network then has to give features, shape (B, D).
        input_shape: Shape of one input.
        n_classes: Number of classes.
        heads: ``"single"``, an output for every class, as the network builds it itself; ``"masked"``, the same limited
            to the classes seen; ``"current"``, limited to the experience's own classes in training; ``"multi"``, one
            output layer for each task label; ``"growing"``, outputs as classes arrive.
        options: The network's own settings.

    Returns:
        A module with children ``features`` and ``classifier`` (a user's network: as it comes, with ``heads="single"``).

    Raises:
        ValueError: An unknown name, a path that leads nowhere, an unknown kind of head, or a size out of range.
        TypeError: An option that the network does not take, or a function that returns no module.

    Example:
        >>> network = build_model("mlp", (1, 28, 28), 10, heads="masked", hidden=(100,))
        >>> network.classifier
        MaskedClassifier(
          (classifier): Linear(in_features=100, out_features=10, bias=True)
        )
    """
    builder = find_builder(name)
    if heads not in HEADS:
        raise ValueError(f"heads={heads!r}: expected one of {', '.join(map(repr, HEADS))}")
    if n_classes < 1:
        raise ValueError(f"n_classes={n_classes!r}: expected at least 1")
    _check_options(name, builder, options)
    network = builder(input_shape, n_classes if heads == "single" else 0, **options)
    if not isinstance(network, nn.Module):
        raise TypeError(f"{name} returned a {type(network).__name__}: expected a torch.nn.Module")
    if heads == "single":
        return network
    return attach_head(network, HEADS[heads](num_features_of(network, input_shape), n_classes))


def find_builder(name: str) -> Builder:
    """The function behind a name or an import path.

    Raises:
        ValueError: There is none.
    """
    if ":" in name:
        return import_function(name)
    if name not in MODELS:
        raise ValueError(
            f"unknown model {name!r}{closest(name, MODELS)}: choose one of {', '.join(MODELS)}, or an import path "
            "'package.module:function'"
        )
    return MODELS[name]


def _check_options(name: str, builder: Builder, options: dict[str, Any]) -> None:
    parameters = inspect.signature(builder).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    taken = list(parameters)[2:]
    unknown = [option for option in options if option not in taken]
    if unknown:
        hint = closest(unknown[0], taken)
        raise TypeError(f"model {name!r} has no option {unknown[0]!r}{hint}; it has: {', '.join(taken) or 'none'}")
