"""Sums of squared gradients of single samples, from one backward pass, for layers whose gradients are known in form.

A linear layer's gradient of one sample is an outer product, so that the sum of squares over samples is a product of
squares: no sample's gradient has to be written down. Where a sample goes through a layer at many positions, or a weight
is used several times, its gradient is summed first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional

__all__ = ["squares_of_samples", "unknown_layers"]

#: Elements of single samples' gradients of one weight that may lie in memory at once.
ROOM = 1 << 24


@dataclass(frozen=True)
class Use:
    """One call of a layer: from what it takes and what comes back to it, single samples' gradients follow.

    Attributes:
        layer: The layer.
        taken: Its input, shape (B, ...).
        returned: The gradient of its output, shape (B, ...).
    """

    layer: nn.Module
    taken: Tensor
    returned: Tensor

    def gradient(self, role: str, part: slice) -> Tensor:
        """Of some samples, for the layer's parameter of a name: shape (samples, *parameter)."""
        taken, returned = self.taken[part], self.returned[part]
        rules = BIASES if role == "bias" else WEIGHTS
        return rules[type(self.layer)](self.layer, taken, returned)

    def is_outer(self, role: str) -> bool:
        """Whether a sample's gradient is one outer product."""
        return type(self.layer) is nn.Linear and role == "weight" and self.taken.dim() == 2


def unknown_layers(model: nn.Module, learning: Mapping[str, nn.Parameter]) -> list[str]:
    """The layers that hold parameters of these, and whose gradients are not known in form."""
    wanted, found = {id(p) for p in learning.values()}, []
    for name, module in model.named_modules():
        if any(id(p) in wanted for p in module.parameters(recurse=False)) and not _is_known(module):
            found.append(f"{name or 'the model'} ({type(module).__name__})")
    return found


def squares_of_samples(
    model: nn.Module, learning: Mapping[str, nn.Parameter], log_probs: Callable[[], Tensor]
) -> dict[str, Tensor]:
    """Sum over a batch's samples of their squared gradients.

    Args:
        model: Whose layers are all known (``unknown_layers``), in evaluation mode.
        learning: The parameters.
        log_probs: Calls the model and returns one log-probability a sample.

    Returns:
        A tensor per name, in the parameter's shape; parameters that are not used are absent.
    """
    calls: list[tuple[nn.Module, Tensor, GradientEdge]] = []

    def note(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append((layer, given[0].detach(), get_gradient_edge(output)))  # as it is now: it may be written over

    wanted = {id(p): name for name, p in learning.items()}
    layers = [m for m in model.modules() if any(id(p) in wanted for p in m.parameters(recurse=False))]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.enable_grad():
            total = log_probs().sum()
    finally:
        for handle in handles:
            handle.remove()
    returned = torch.autograd.grad(total, [edge for *_, edge in calls], allow_unused=True)
    uses: dict[str, list[tuple[str, Use]]] = {}
    for (layer, taken, _), back in zip(calls, returned, strict=True):
        for role, parameter in layer.named_parameters(recurse=False):
            if id(parameter) in wanted and back is not None:
                uses.setdefault(wanted[id(parameter)], []).append((role, Use(layer, taken, back)))
    return {name: _squares(learning[name], found) for name, found in uses.items()}


def _squares(parameter: Tensor, uses: list[tuple[str, Use]]) -> Tensor:
    role, first = uses[0]
    if len(uses) == 1 and first.is_outer(role):
        return first.returned.square().T @ first.taken.square()
    samples, total = len(first.taken), torch.zeros_like(parameter)
    step = max(1, ROOM // max(parameter.numel(), 1))
    for begin in range(0, samples, step):
        part = slice(begin, begin + step)
        total += sum(use.gradient(name, part) for name, use in uses).square().sum(0)  # type: ignore[union-attr]
    return total


def _is_known(layer: nn.Module) -> bool:
    if type(layer) not in WEIGHTS:
        return False
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    if isinstance(layer, nn.Embedding):
        return layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse
    return not isinstance(layer, nn.BatchNorm2d) or layer.track_running_stats


def _linear(_: nn.Module, taken: Tensor, returned: Tensor) -> Tensor:
    return torch.einsum("b...o,b...i->boi", returned, taken)


def _convolution(layer: nn.Conv2d, taken: Tensor, returned: Tensor) -> Tensor:
    patches = functional.unfold(taken, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
    return (returned.flatten(2) @ patches.transpose(1, 2)).view(len(taken), *layer.weight.shape)


def _embedding(layer: nn.Embedding, taken: Tensor, returned: Tensor) -> Tensor:
    tokens, found = taken.flatten(1), returned.new_zeros(len(taken), *layer.weight.shape)
    back = returned.reshape(*tokens.shape, -1)
    if layer.padding_idx is not None:
        back = back * (tokens != layer.padding_idx).unsqueeze(-1)
    return found.scatter_add_(1, tokens.unsqueeze(-1).expand_as(back), back)


def _layer_norm(layer: nn.LayerNorm, taken: Tensor, returned: Tensor) -> Tensor:
    product = functional.layer_norm(taken, layer.normalized_shape, eps=layer.eps) * returned
    return product.reshape(len(taken), -1, *layer.normalized_shape).sum(1)


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, taken: Tensor, returned: Tensor) -> Tensor:
    normal = functional.batch_norm(taken, layer.running_mean, layer.running_var, eps=layer.eps)
    return (normal * returned).flatten(2).sum(2) if taken.dim() > 2 else normal * returned


def _over_positions(layer: nn.Module, taken: Tensor, returned: Tensor) -> Tensor:
    """A bias that is added at the last dimension."""
    last = layer.bias.dim()  # type: ignore[operator]
    return returned.reshape(len(taken), -1, *returned.shape[returned.dim() - last :]).sum(1)


def _over_area(_: nn.Module, __: Tensor, returned: Tensor) -> Tensor:
    """A bias of channels."""
    return returned.flatten(2).sum(2) if returned.dim() > 2 else returned


Rule = Callable[[Any, Tensor, Tensor], Tensor]  # of the layer that it is listed for
WEIGHTS: dict[type[nn.Module], Rule] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.Embedding: _embedding,
    nn.LayerNorm: _layer_norm,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
}
BIASES: dict[type[nn.Module], Rule] = {
    nn.Linear: _over_positions,
    nn.Conv2d: _over_area,
    nn.LayerNorm: _over_positions,
    nn.BatchNorm1d: _over_area,
    nn.BatchNorm2d: _over_area,
}
