"""What a model makes of samples: features, logits and class weights, for the samplers that look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from rwalk.replay.calling import called, scores_in, stacked
from rwalk.replay.layers import class_weight, classifier_of, find_layer
from rwalk.replay.undisturbed import undisturbed

__all__ = ["Probe"]

Loader = Callable[[Dataset[Any], int], Iterable[Any]]


class Probe:
    """Reads a model, batch by batch, and leaves it as it was (see ``undisturbed``).

    Args:
        model: In any mode, on any device.
        forward: Maps a batch, ``[x, y, ...]`` or a mapping of columns, to the model's output. By default ``model(x)``
            on the model's device; of columns, all but the labels, by name where the model takes these names.
        loader: Makes batches in order out of a dataset and a batch size; by default torch's ``DataLoader``,
            in which rows may have lists of numbers, as those of a Hugging Face dataset do.
        batch_size: Samples that are looked at together.

    Raises:
        ValueError: ``batch_size`` is below 1.
        TypeError: In use, the model cannot be called like that with the data's columns.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> probe, data = Probe(model), [(torch.rand(4), 0), (torch.rand(4), 1)]
        >>> probe.features([data]).shape, probe.features([data], "0").shape, probe.logits([data]).shape
        (torch.Size([2, 8]), torch.Size([2, 8]), torch.Size([2, 3]))
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        forward: Callable[[Any], Any] | None = None,
        loader: Loader | None = None,
        batch_size: int = 256,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size!r}: expected at least 1")
        self.model, self.batch_size = model, batch_size
        self.forward = partial(called, model) if forward is None else forward
        self.loader: Loader = partial(DataLoader, collate_fn=stacked) if loader is None else loader

    def features(self, data: Sequence[Any], layer: str | None = None, classifier: str | None = None) -> Tensor:
        """Features of samples.

        Args:
            data: Datasets of ``(x, y)`` or ``(x, y, task label)``, or of rows that are mappings, one after the other.
            layer: Whose output to take, flattened; the input of the classification layer if None. Of a layer that is
                called several times in a forward pass, the last call counts.
            classifier: The classification layer; the last ``nn.Linear`` if None.

        Returns:
            Shape (N, D), on the CPU, in the dtype that the layer gives.

        Raises:
            ValueError: No such layer, it is not called, or it does not give a row for each sample.
            TypeError: What it gives is not a tensor.
        """
        seen: list[Any] = []

        def keep_output(module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001
            seen.append(_copied(output))

        def keep_input(module: nn.Module, args: Any, kwargs: Any) -> None:  # noqa: ARG001
            seen.append(_copied(next(chain(args, kwargs.values()), None)))

        if layer is not None:
            name = f"layer {layer!r}"
            handle = find_layer(self.model, layer).register_forward_hook(keep_output)
        else:
            found, head = classifier_of(self.model, classifier)
            name = f"the input of layer {found!r}"
            handle = head.register_forward_pre_hook(keep_input, with_kwargs=True)

        def last_seen(batch: Any) -> Any:
            seen.clear()
            self.forward(batch)
            if not seen:
                raise ValueError(f"{name}: the layer is not called in a forward pass; name one that is")
            return seen[-1]

        try:
            rows = self._rows(data, last_seen, name)
        finally:
            handle.remove()
        return rows.reshape(len(rows), -1)

    def logits(self, data: Sequence[Any]) -> Tensor:
        """The model's scores of samples, shape (N, C), on the CPU: its output, or the ``logits`` in it.

        Arguments and errors are those of ``features``.
        """
        return self._rows(data, lambda batch: _copied(scores_in(self.forward(batch))), "the model")

    def class_weight(self, label: int, classifier: str | None = None) -> Tensor:
        """The row of the classification layer for a class, shape (D,), on the CPU."""
        return class_weight(self.model, label, classifier)

    def _rows(self, data: Sequence[Any], take: Callable[[Any], Any], name: str) -> Tensor:
        with undisturbed(self.model):
            batches = chain.from_iterable(self.loader(part, self.batch_size) for part in data)
            rows = [_checked(take(batch), _samples(batch), name) for batch in batches]
        if len(shapes := {part.shape[1:] for part in rows}) > 1:
            raise ValueError(
                f"{name} gives rows of shapes {sorted(map(tuple, shapes))}: expected as many features of each sample"
            )
        return torch.cat(rows)


def _samples(batch: Any) -> int:
    """Samples in a batch: task labels, which come last, are one each; so are targets, if they are no structure."""
    if isinstance(batch, Mapping):
        return len(next(value for value in batch.values() if isinstance(value, Tensor)))
    return len(batch if isinstance(batch, Tensor) else batch[-1])


def _copied(output: Any) -> Any:
    """A copy, because a layer that follows may work in place."""
    return output.detach().clone() if isinstance(output, Tensor) else output


def _checked(output: Any, samples: int, name: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise TypeError(f"{name} gives a {type(output).__name__}: expected a tensor with a row for each sample")
    if output.dim() == 0 or len(output) != samples:
        raise ValueError(f"{name} gives shape {tuple(output.shape)} for {samples} samples: expected a row for each")
    return output.cpu()
