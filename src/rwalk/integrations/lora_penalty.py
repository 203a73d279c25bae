"""The penalty on what adapters change, and its gradient: weights with factors of the same shapes go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rwalk.core import low_rank as F
from rwalk.integrations.lora_state import Kept

if TYPE_CHECKING:
    from rwalk.integrations.lora_layers import AdaptedWeight, Part

__all__ = ["GradientAdder", "penalty_of"]

Group = list[tuple[str, "list[Part]"]]


def penalty_of(adapted: Mapping[str, AdaptedWeight], kept: Mapping[str, Kept]) -> Tensor:
    """The sum over all weights of importance times squared change, without its strength; differentiable."""
    total = torch.zeros((), dtype=torch.float32)
    for name, each in adapted.items():
        if name in kept:
            left, right = _change(kept[name], each.active())
            for term in kept[name].terms:
                value = F.penalty(left[:, term.since :], right[term.since :], term.importance)
                total = total.to(value) + value
    return total


class GradientAdder:
    """Adds the penalty's gradient to ``.grad`` of adapters."""

    def __init__(self) -> None:
        self._stacked: dict[tuple[str, ...], list[F.Importance]] = {}

    def __call__(self, adapted: Mapping[str, AdaptedWeight], kept: dict[str, Kept], strength: Tensor | float) -> None:
        """Add it where there is a gradient.

        Args:
            adapted: The weights.
            kept: Their state; what is on another device than its adapters is moved there.
            strength: What the penalty is multiplied by.
        """
        groups: dict[tuple[Any, ...], Group] = {}
        for name, each in adapted.items():
            parts = each.active()
            if name not in kept or all(p.grad is None for part in parts for p in (part.left, part.right)):
                continue
            device = parts[0].left.device
            if kept[name].left.device != device:
                kept[name] = kept[name].to(device)
                self.forget()
            state = kept[name]
            alone = None if state.is_factored else name  # stacking whole importances would copy them
            alike = tuple((part.left.shape, part.right.shape, part.left.dtype) for part in parts)
            key = (alone, device, state.rank, tuple(term.since for term in state.terms), alike)
            groups.setdefault(key, []).append((name, parts))
        for group in groups.values():
            self._add(group, kept, strength)

    def forget(self) -> None:
        """Importances have changed."""
        self._stacked.clear()

    def _add(self, group: Group, kept: Mapping[str, Kept], strength: Tensor | float) -> None:
        names = tuple(name for name, _ in group)
        changes = [_change(kept[name], parts) for name, parts in group]
        left, right = (torch.stack([change[side] for change in changes]) for side in (0, 1))
        of_left, of_right = torch.zeros_like(left), torch.zeros_like(right)
        for term, importance in zip(kept[names[0]].terms, self._importances(names, kept), strict=True):
            since = slice(term.since, None)
            found = F.penalty_gradients(left[..., since], right[..., since, :], importance)
            of_left[..., since] += found[0]
            of_right[..., since, :] += found[1]
        gradients: list[Tensor] = []
        added: list[Tensor] = []
        pairs = zip(group, of_left.mul_(strength), of_right.mul_(strength), strict=True)
        for (name, parts), lefts, rights in pairs:
            begin = kept[name].rank
            for part in parts:
                ranks = slice(begin, begin + part.rank)
                begin += part.rank
                for parameter, gradient in (
                    (part.left, lefts[:, ranks] * part.scaling),
                    (part.right, rights[ranks]),
                ):
                    if parameter.grad is not None:
                        gradients.append(parameter.grad)
                        added.append(gradient.view(parameter.shape).to(parameter.grad.dtype))
        torch._foreach_add_(gradients, added)

    def _importances(self, names: tuple[str, ...], kept: Mapping[str, Kept]) -> list[F.Importance]:
        """Of a group, term by term, stacked and kept so."""
        if names not in self._stacked:
            each = [[term.importance for term in kept[name].terms] for name in names]
            self._stacked[names] = [_stack(importances) for importances in zip(*each, strict=True)]
        return self._stacked[names]


def _change(kept: Kept, parts: list[Part]) -> tuple[Tensor, Tensor]:
    """Factors of all that has changed a weight since it was first protected: what was merged, then the adapters."""
    factors = [part.factors() for part in parts]
    left = torch.cat([kept.left, *(left.to(kept.left.dtype) for left, _ in factors)], dim=1)
    right = torch.cat([kept.right, *(right.to(kept.right.dtype) for _, right in factors)], dim=0)
    return left, right


def _stack(importances: tuple[F.Importance, ...]) -> F.Importance:
    whole = [each for each in importances if isinstance(each, Tensor)]
    if whole:
        return whole[0].unsqueeze(0)  # one weight alone, so that nothing is copied
    pairs = [each for each in importances if isinstance(each, tuple)]
    return torch.stack([row for row, _ in pairs]), torch.stack([column for _, column in pairs])
