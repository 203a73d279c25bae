"""What is kept of one adapted weight: importances, and how far adapters that were merged have moved the base."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rwalk.core.low_rank import Importance
from rwalk.core.state import arithmetic

__all__ = ["Kept", "Term"]


@dataclass
class Term:
    """One ``protect``.

    Attributes:
        importance: Ω of shape (m, n), or its row (m,) and column (n,).
        since: The rank of the drift when the weight was protected: what was merged before is where it is anchored.
    """

    importance: Importance
    since: int

    def whole(self) -> Tensor:
        """Ω, shape (m, n)."""
        if isinstance(self.importance, tuple):
            row, column = self.importance
            return row.unsqueeze(1) * column
        return self.importance


@dataclass
class Kept:
    """State of one adapted weight.

    Attributes:
        sums: Sums over the rows of the base's weight when it was first protected, float64 (m,): another base is told
            from it.
        terms: One for each ``protect``.
        left: Of shape (m, k): with ``right``, what adapters that were merged have added since, in order.
        right: Of shape (k, n).
    """

    sums: Tensor
    left: Tensor
    right: Tensor
    terms: list[Term] = field(default_factory=list)

    @classmethod
    def of(cls, matrix: Tensor) -> Kept:
        """For a weight of the base, shape (m, n), where it is now."""
        (rows, columns), dtype = matrix.shape, arithmetic(matrix.dtype)
        empty = matrix.new_zeros(rows, 0, dtype=dtype), matrix.new_zeros(0, columns, dtype=dtype)
        return cls(matrix.double().sum(1), *empty)

    @property
    def rank(self) -> int:
        """Of the drift."""
        return self.left.shape[1]

    @property
    def is_factored(self) -> bool:
        """Whether importances are rows and columns."""
        return all(isinstance(term.importance, tuple) for term in self.terms)

    def joins(self, importance: Importance) -> None:
        """Add importances of the weight where it is now."""
        for term in self.terms:
            if term.since == self.rank and isinstance(importance, Tensor) and isinstance(term.importance, Tensor):
                term.importance = term.importance + importance
                return
        self.terms.append(Term(importance, self.rank))

    def drifts(self, left: Tensor, right: Tensor) -> None:
        """``left @ right`` was merged into the weight."""
        self.left = torch.cat([self.left, left.to(self.left)], dim=1)
        self.right = torch.cat([self.right, right.to(self.right)], dim=0)

    def is_of(self, matrix: Tensor) -> bool:
        """Whether a base's weight is the one that was protected, moved by the drift, up to rounding."""
        if matrix.shape != (self.left.shape[0], self.right.shape[1]):
            return False
        found = matrix.double()
        drift = self.left.double() @ self.right.double().sum(1)
        scale = found.norm() / len(found) ** 0.5 + self.left.double().norm() * self.right.double().norm()
        allowed = 16 * max(torch.finfo(matrix.dtype).eps, torch.finfo(torch.float32).eps) * float(scale)
        return float((found.sum(1) - drift - self.sums).abs().max()) <= allowed + 1e-12

    def to(self, device: torch.device) -> Kept:
        """On a device."""
        terms = [Term(_each(term.importance, lambda part: part.to(device)), term.since) for term in self.terms]
        return Kept(self.sums.to(device), self.left.to(device), self.right.to(device), terms)

    def export(self) -> dict[str, Any]:
        """As plain values and copies of tensors."""
        values: dict[str, Any] = {"sums": self.sums.clone(), "left": self.left.clone(), "right": self.right.clone()}
        for index, term in enumerate(self.terms):
            values[f"since.{index}"] = term.since
            if isinstance(term.importance, tuple):
                values[f"row.{index}"], values[f"column.{index}"] = (part.clone() for part in term.importance)
            else:
                values[f"importance.{index}"] = term.importance.clone()
        return values

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> Kept:
        """From what ``export`` gave.

        Raises:
            KeyError: Something is missing.
        """
        kept = cls(values["sums"].clone(), values["left"].clone(), values["right"].clone())
        for index in range(sum(name.startswith("since.") for name in values)):
            whole = values.get(f"importance.{index}")
            importance = (values[f"row.{index}"], values[f"column.{index}"]) if whole is None else whole
            kept.terms.append(Term(_each(importance, Tensor.clone), int(values[f"since.{index}"])))
        return kept


def _each(importance: Importance, change: Callable[[Tensor], Tensor]) -> Importance:
    if isinstance(importance, tuple):
        row, column = importance
        return change(row), change(column)
    return change(importance)
