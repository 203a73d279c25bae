"""A model's layers by name, and the one that classifies."""

from __future__ import annotations

from difflib import get_close_matches

from torch import Tensor, nn

__all__ = ["class_weight", "classifier_of", "find_layer"]

WRAPPERS = ("module", "_orig_mod")  # of DataParallel and DDP, and of torch.compile


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """A layer by its name in ``model.named_modules()``; what DDP and ``torch.compile`` put into it may be left out.

    Raises:
        ValueError: There is none; the names that are most like it are listed.

    Example:
        >>> find_layer(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), "1")
        ReLU()
        >>> find_layer(nn.ModuleDict({"encoder": nn.Linear(4, 8), "head": nn.Linear(8, 2)}), "encode")
        Traceback (most recent call last):
        ...
        ValueError: the model has no layer 'encode'; the names most like it: encoder, head
    """
    exact: dict[str, nn.Module] = dict(model.named_modules())
    layers = {_bare(raw): layer for raw, layer in exact.items()} | exact
    if name and name in layers:
        return layers[name]
    known = list(dict.fromkeys(_bare(raw) for raw in exact if _bare(raw)))
    likely = get_close_matches(name, known, n=5, cutoff=0.0)
    raise ValueError(f"the model has no layer {name!r}; the names most like it: {', '.join(likely) or '(it has none)'}")


def classifier_of(model: nn.Module, name: str | None = None) -> tuple[str, nn.Module]:
    """The classification layer: the named one, or the last ``nn.Linear`` in ``model.named_modules()``.

    Returns:
        Its name and the layer. Its ``weight`` has shape (classes, features).

    Raises:
        ValueError: No such layer, no ``nn.Linear``, or the named layer has no such weight.
    """
    if name is not None:
        layer = find_layer(model, name)
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() != 2:
            raise ValueError(
                f"layer {name!r} ({type(layer).__name__}) cannot classify: expected a weight (classes, features)"
            )
        return name, layer
    linear = [(_bare(raw), layer) for raw, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError(
            f"{type(model).__name__} has no nn.Linear: name the classification layer, as in "
            "PlaneDistance(classifier='head')"
        )
    return linear[-1]


def class_weight(model: nn.Module, label: int, classifier: str | None = None) -> Tensor:
    """The row of the classification layer that belongs to a class, shape (D,), on the CPU.

    Raises:
        ValueError: The layer has no such row, or see ``classifier_of``.
    """
    name, layer = classifier_of(model, classifier)
    weight = layer.weight
    if not isinstance(weight, Tensor) or not 0 <= label < len(weight):
        rows = len(weight) if isinstance(weight, Tensor) else 0
        raise ValueError(
            f"classification layer {name!r} has {rows} rows, none for class {label}: name another one, as in "
            "PlaneDistance(classifier='head')"
        )
    return weight.detach()[label].cpu()


def _bare(name: str) -> str:
    """A name without what wrappers put into it; a model may own a ``module``, so that this goes in front only."""
    parts = name.split(".")
    while parts and parts[0] in WRAPPERS:
        parts = parts[1:]
    return ".".join(part for part in parts if part != "_orig_mod")
