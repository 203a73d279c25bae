"""Sums of squared gradients of single samples, in the fastest way that gives the right ones."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils import _pytree as pytree

from rwalk.core.closed_form import squares_of_samples, unknown_layers
from rwalk.core.likelihood import WAYS_OUT
from rwalk.core.state import arithmetic
from rwalk.errors import RWalkError

__all__ = ["Question", "Squares", "size_of", "sliced"]

log = logging.getLogger(__name__)

Method = Literal["closed form", "vmap", "one at a time"]
Question = tuple[Callable[..., Tensor], Any]
Way = Callable[[Question, Any, int], dict[str, Tensor]]
#: Elements of all single samples' gradients together that may lie in memory at once.
ROOM = 1 << 26
#: Samples of a batch that ways are compared on, at most.
LOOKED_AT = 16


class Squares:
    """Adds up the squared gradients of single samples, in the fastest way that gives the right ones.

    What is right is one sample at a time. The other ways are compared with it on the first samples that have gradients,
    two by two, until every parameter has had one (of the first batch's sixteen at most).
    """

    def __init__(
        self,
        model: nn.Module,
        learning: Mapping[str, nn.Parameter],
        total: dict[str, Tensor],
        rng: torch.Generator,
    ) -> None:
        self._model, self._learning, self._total, self._rng = model, learning, total, rng
        self.method: Method | None = None  # until a sample has had a gradient
        self._ways: dict[Method, Way] = {
            "closed form": self._in_closed_form,
            "vmap": self._together,
            "one at a time": self._alone,
        }

    def add(self, question: Question, batch: Any, size: int) -> None:
        """Add a batch's samples."""
        if self.method is None:
            self.method = self._choose(question, batch, size)
        for name, found in self._ways[self.method or "one at a time"](question, batch, size).items():
            self._total[name] += found.to(self._total[name].dtype)

    def _choose(self, question: Question, batch: Any, size: int) -> Method | None:
        if size < 2:
            return "one at a time"
        if unknown := unknown_layers(self._model, self._learning):
            log.info("protect(): no closed form for %s", ", ".join(unknown[:3]))
        ways: tuple[Method, ...] = ("vmap",) if unknown else ("closed form", "vmap")
        for way in ways:
            agrees = self._agrees_throughout(way, question, batch, size)
            if agrees is not False:
                return way if agrees else None
        return "one at a time"

    def _agrees_throughout(self, way: Method, question: Question, batch: Any, size: int) -> bool | None:
        """Whether a way gives the right gradients of a batch's first samples; None if all of them are zero."""
        reached, state = set[str](), self._rng.get_state()
        for begin in range(0, min(size - 1, LOOKED_AT), 2):
            two, asked = sliced(batch, begin, begin + 2), (question[0], sliced(question[1], begin, begin + 2))
            expected = self._alone(asked, two, 2)
            self._rng.set_state(state)
            found = {name for name, right in expected.items() if bool((right != 0).any())}
            if found - reached and not self._agrees(way, asked, two, expected):  # where all is zero, every way is right
                return False
            reached |= found
            if len(reached) == len(self._learning):
                break
        return True if reached else None

    def _agrees(self, method: Method, question: Question, two: Any, expected: Mapping[str, Tensor]) -> bool:
        state = self._rng.get_state()
        try:
            found = self._ways[method](question, two, 2)
        except Exception as error:  # whatever a model's code does that this way cannot
            log.info("protect(): not by %s (%s)", method, (str(error).splitlines() or [""])[0][:200])
            return False
        finally:
            self._rng.set_state(state)
        if not _alike(found, expected):
            log.info("protect(): not by %s, whose gradients are others", method)
            return False
        return True

    def _in_closed_form(self, question: Question, batch: Any, size: int) -> dict[str, Tensor]:
        function, fixed = question

        def log_probs() -> Tensor:
            found = function(self._model, batch, fixed)
            _check(found, size)
            _check_graph(found)
            return found

        return squares_of_samples(self._model, self._learning, log_probs)

    def _alone(self, question: Question, batch: Any, size: int) -> dict[str, Tensor]:
        function, fixed = question
        total: dict[str, Tensor] = {}
        for index in range(size):
            one, given = sliced(batch, index, index + 1), sliced(fixed, index, index + 1)
            with torch.enable_grad():
                found = function(self._model, one, given)
                _check(found, 1)
                _check_graph(found)
                gradients = torch.autograd.grad(found.sum(), list(self._learning.values()), allow_unused=True)
            for name, gradient in zip(self._learning, gradients, strict=True):
                if gradient is not None:
                    total[name] = _precise(gradient).square().add_(total.get(name, 0.0))
        return total

    def _together(self, question: Question, batch: Any, size: int) -> dict[str, Tensor]:
        function, fixed = question
        weights, total = {name: p.detach() for name, p in self._learning.items()}, dict[str, Tensor]()
        step = max(1, ROOM // sum(p.numel() for p in self._learning.values()))
        for begin in range(0, size, step):
            some, given = (sliced(tree, begin, begin + step) for tree in (batch, fixed))

            def of_one(weights: dict[str, Tensor], one: list[Tensor], kept: list[Tensor]) -> Tensor:
                sample = _rebuilt(some, [tensor.unsqueeze(0) for tensor in one])  # noqa: B023
                rest = _rebuilt(given, [tensor.unsqueeze(0) for tensor in kept])  # noqa: B023
                found = function(_Called(self._model, weights), sample, rest)
                _check(found, 1)
                return found.sum()

            mapped = vmap(grad(of_one), in_dims=(None, 0, 0), randomness="different")
            with warnings.catch_warnings():  # of operations that torch maps one by one: slower, and right
                warnings.filterwarnings("ignore", message="There is a performance drop")
                found = mapped(weights, _tensors(some), _tensors(given))
            for name, gradients in found.items():
                total[name] = _precise(gradients.detach()).square().sum(0) + total.get(name, 0.0)
        return total


class _Called:
    """The model with other weights."""

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        self._model, self._weights = model, weights

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self._model, dict(self._weights), args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _alike(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    zero = torch.zeros(())
    for name in found.keys() | expected.keys():
        mine, right = found.get(name, zero), expected.get(name, zero)
        if mine.numel() == right.numel() == 0:
            continue
        if not float((mine - right).abs().max()) <= 1e-4 * float(right.abs().max()) + 1e-30:
            return False
    return True


def _check(found: Tensor, size: int) -> None:
    if not isinstance(found, Tensor) or found.shape != (size,):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise RWalkError(f"log_prob returned {shape} for {size} sample(s): expected a tensor of shape ({size},)")


def _check_graph(found: Tensor) -> None:
    if not found.requires_grad:
        raise RWalkError(
            "the log-probabilities do not depend on the model's weights: they were computed under torch.no_grad(), "
            "detached, or by another model"
        )


def _precise(gradient: Tensor) -> Tensor:
    """In the dtype of the arithmetic: a half's squares vanish, and a sum of many of them stands still."""
    return gradient.to(arithmetic(gradient.dtype))


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.dim()]


def _rebuilt(tree: Any, tensors: list[Tensor]) -> Any:
    left = iter(tensors)
    return pytree.tree_map(lambda leaf: next(left) if isinstance(leaf, Tensor) and leaf.dim() else leaf, tree)


def size_of(batch: Any) -> int:
    """How many samples a batch has.

    Raises:
        RWalkError: Its tensors differ in that.
    """
    sizes = {len(tensor) for tensor in _tensors(batch)}
    if len(sizes) != 1:
        raise RWalkError(f"a batch's tensors have {sorted(sizes)} samples: expected one number; {WAYS_OUT}")
    return sizes.pop()


def sliced(tree: Any, begin: int, end: int) -> Any:
    """Some of a batch's samples."""
    return pytree.tree_map(lambda leaf: leaf[begin:end] if isinstance(leaf, Tensor) and leaf.dim() else leaf, tree)
