"""Squared gradients of single samples, summed: the Fisher of a model that nobody watched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from rwalk.batches import LABELS, loss_of, ordinary, refuse_single, to_device
from rwalk.core.likelihood import (
    Evidence,
    Kind,
    Labels,
    Likelihood,
    as_outputs,
    call,
    outputs_of,
    split,
    tell,
)
from rwalk.core.sharding import is_sharded, over_replicas, replicated
from rwalk.core.squares import Question, Squares, size_of, sliced
from rwalk.core.state import Tracked, arithmetic
from rwalk.errors import MissingExtraError, RWalkError
from rwalk.module_state import in_eval_mode, with_buffers_put_back

__all__ = ["LogProb", "Protection", "fisher_of_samples", "own_loss", "protection_of"]

log = logging.getLogger(__name__)

LogProb = Callable[[nn.Module, Any, torch.Generator], Tensor]


def protection_of(
    model: nn.Module, entries: Iterable[Tracked], batches: Iterable[Any], **options: Any
) -> tuple[dict[str, Tensor], Protection]:
    """``fisher_of_samples`` of what an RWalk follows, by its names; over all processes that share a DDP model.

    Raises:
        RWalkError: As there; parameters are sharded, or a gradient is not finite.
        TypeError: ``batches`` is a single batch.
        ValueError: An option is out of range, or none of the outputs' dimensions is ``class_dim``.
    """
    for name, value, choices in (("labels", options["labels"], Labels), ("likelihood", options["likelihood"], Kind)):
        if value not in get_args(choices) and not (name == "likelihood" and value is None):
            raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, get_args(choices)))}")
    refuse_single("batches", batches)
    limit = options["max_samples"]
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"max_samples={limit!r}: expected a whole number of samples ≥ 1, or None")
    wrapper = replicated(model)
    bare = model if wrapper is None else wrapper.module
    bare = getattr(bare, "_orig_mod", bare)
    names = {id(parameter): name for name, parameter in bare.named_parameters()}
    listed = list(entries)
    for entry in listed:
        _refuse_unfit(entry.name, entry.parameter)
    chosen = {names[id(entry.parameter)]: entry.parameter for entry in listed}
    found, done = fisher_of_samples(bare, chosen, batches, **options)
    sums = [value.mul_(done.samples) for value in found.values()]
    samples = over_replicas(wrapper, sums, done.samples)
    renamed = {entry.name: found[names[id(entry.parameter)]].div_(samples) for entry in listed}
    for name, value in renamed.items():
        if not bool(value.isfinite().all()):
            raise RWalkError(f"the gradient of {name!r} is not finite on these samples")
    return renamed, done


def _refuse_unfit(name: str, parameter: Tensor) -> None:
    if is_sharded(parameter):
        raise RWalkError(
            f"protect() needs whole parameters, and {name} is sharded over processes: protect the model before it is "
            "sharded, save() the state and load() it into the sharded one"
        )
    if isinstance(parameter, UninitializedParameter) or parameter.device.type == "meta":
        raise RWalkError(f"{name} has no values yet: initialise the model (a lazy module by calling it once) first")
    if parameter.is_complex():
        raise RWalkError(f"{name} is complex: RWalk needs real parameters; leave it out with exclude=({name!r},)")


@dataclass(frozen=True)
class Protection:
    """What ``RWalk.protect`` did.

    Attributes:
        samples: How many; those of which no label counts (-100) are none.
        likelihood: As what the outputs were taken: a ``Kind``, or ``"log_prob"``.
        labels: Whose labels.
        method: How single samples' gradients were found: in ``"closed form"``, by ``"vmap"``, or ``"one at a time"``.
    """

    samples: int
    likelihood: str
    labels: str
    method: str

    def __str__(self) -> str:
        """In a line."""
        return f"{self.samples} samples, {self.likelihood}, labels {self.labels!r}, gradients by {self.method}"


def fisher_of_samples(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    batches: Iterable[Any],
    *,
    labels: Labels = "sampled",
    likelihood: Kind | None = None,
    class_dim: int | None = None,
    log_prob: LogProb | None = None,
    forward: Callable[[Any], Tensor] | None = None,
    max_samples: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> tuple[dict[str, Tensor], Protection]:
    r"""Diagonal Fisher of a model as it stands, from the gradients of single samples.

    .. math:: \hat F = \frac1N \sum_i \big(\nabla \log p(y_i \mid x_i)\big)^2

    The model is in evaluation mode meanwhile (a batch's statistics would couple its samples); modes, buffers and
    ``.grad`` stay as they are.

    Args:
        model: The model.
        parameters: Whose Fisher, by the model's own names.
        batches: Tensors x, pairs (x, y) or dictionaries.
        labels: ``"sampled"``: drawn from the model, the Fisher proper. ``"data"``: the batches' own, the empirical
            Fisher. ``"argmax"``: the most likely ones.
        likelihood: What the outputs are; told from outputs and labels if None.
        class_dim: Which dimension of the outputs goes over classes, where that cannot be told.
        log_prob: Maps model, batch and a generator to one log-probability a sample, shape (B,), instead of all this.
        forward: Maps a batch to the outputs, where that takes more than calling the model.
        max_samples: Stop after so many.
        seed: Of what is drawn.
        progress: Show a progress bar.

    Returns:
        A tensor per name, in the parameter's shape; and what was done.

    Raises:
        RWalkError: There are no samples, or what the model says of them cannot be told.
    """
    learning = {name: p for name, p in parameters.items() if p.requires_grad}
    total = {name: torch.zeros_like(p, dtype=arithmetic(p.dtype)) for name, p in parameters.items()}
    if not learning:
        raise RWalkError("every parameter is frozen (requires_grad=False): there is nothing to protect")
    rng, device = torch.Generator().manual_seed(seed), next(iter(learning.values())).device
    teller = _Teller(model, labels, likelihood, class_dim, log_prob, rng, forward)
    squares, looked_at, count = Squares(model, learning, total, rng), 0, 0
    with in_eval_mode(model), with_buffers_put_back(model), _bar(progress, max_samples) as bar:
        for given in batches:
            plain = dict(given) if isinstance(given, Mapping) else given  # a tokenizer's batch cannot be cut
            here = ordinary(to_device(plain, device))
            batch = _first(here, None if max_samples is None else max_samples - looked_at)
            size = size_of(batch)
            if size:
                question = teller.question(batch)
                squares.add(question, batch, size)
                looked_at += size
                count += _counted(question, size)
                if bar is not None:
                    bar.update(size)
            if max_samples is not None and looked_at >= max_samples:
                break
    if not count:
        none_counts = f": none of {looked_at} has a label that counts (-100 does not)"
        raise RWalkError(
            f"there are no samples{none_counts if looked_at else ': the batches are empty, or there are none'}"
        )
    teller.check_all()
    found = {name: value.div_(count) for name, value in total.items()}
    return found, Protection(
        count, teller.name, labels if log_prob is None else "log_prob's", squares.method or "one at a time"
    )


def _bar(wanted: bool, total: int | None) -> AbstractContextManager[Any]:
    if not wanted:
        return nullcontext()
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise MissingExtraError("progress=True", "cli", error) from error
    bar: AbstractContextManager[Any] = tqdm(total=total, desc="protect", unit="sample")
    return bar


class _Teller:
    """Turns a batch into what is differentiated: a function of the model and a sample."""

    def __init__(
        self,
        model: nn.Module,
        labels: Labels,
        kind: Kind | None,
        class_dim: int | None,
        log_prob: LogProb | None,
        rng: torch.Generator,
        forward: Callable[[Any], Tensor] | None = None,
    ) -> None:
        self._model, self._labels, self._kind, self._class_dim = model, labels, kind, class_dim
        self._log_prob, self._rng, self._forward = log_prob, rng, forward
        self._told: Likelihood | None = None
        self._seen = Evidence()

    @property
    def name(self) -> str:
        """As what outputs are taken."""
        return "log_prob" if self._told is None else self._told.kind

    def question(self, batch: Any) -> Question:
        """A function of (model, a batch, what is fixed of it) that returns log-probabilities; and what is fixed."""
        if self._log_prob is not None:
            asked, rng = self._log_prob, self._rng
            return lambda model, some, _: asked(model, some, rng), ()
        target = split(batch)[1]
        if target is not None and not target.is_floating_point():
            target = target.long()  # of which none is rounded, and -100 is one
        with torch.no_grad():
            outputs = self._outputs(self._model, batch)
        if not bool(outputs.isfinite().all()):
            raise RWalkError("the model's outputs are not finite on these samples")
        if self._labels == "data" and target is None:
            raise RWalkError("labels='data' needs batches with labels, pairs (x, y) or dictionaries with 'labels'")
        if self._told is None:
            with torch.no_grad():
                loss = own_loss(self._model, batch)
            self._told = tell(outputs, target, kind=self._kind, class_dim=self._class_dim, loss=loss)
            log.info("protect(): outputs of shape (B, %s) are %s", ", ".join(map(str, outputs.shape[1:])), self._told)
        likelihood = self._told
        if target is not None and self._kind is None:
            self._seen.add(target, outputs, likelihood)
        if likelihood.kind != "categorical" and target is not None:
            target = as_outputs(target, outputs) if self._labels == "data" else None
        scores, own, counted = likelihood.positions(outputs, batch, target)
        if self._labels == "data" and own is not None:
            likelihood.check(scores, own, counted)
        fixed = own if self._labels == "data" else likelihood.draw(scores, self._labels, self._rng)
        shift = likelihood.shift and own is not None

        def log_probs(model: nn.Module, some: Any, given: tuple[Tensor, Tensor | None]) -> Tensor:
            found = self._outputs(model, some)
            return likelihood.log_prob(found[:, :-1] if shift else found, *given)

        return log_probs, (fixed, counted)

    def check_all(self) -> None:
        """Refuse what no batch alone could tell; raises ``RWalkError``."""
        self._seen.check()

    def _outputs(self, model: nn.Module, batch: Any) -> Tensor:
        return outputs_of(call(model, split(batch)[0]) if self._forward is None else self._forward(batch))


def own_loss(model: nn.Module, batch: Any) -> float | None:
    """What a model computes itself from labels that are among its arguments."""
    if not isinstance(batch, Mapping) or LABELS not in batch:
        return None
    try:
        loss = loss_of(call(model, batch))
    except TypeError:  # it takes no labels
        return None
    return None if loss is None or loss.numel() != 1 else float(loss)


def _counted(question: Question, size: int) -> int:
    """How many samples have a label that counts."""
    counted = question[1][1] if question[1] else None
    return size if counted is None else int(counted.reshape(size, -1).any(1).sum())


def _first(batch: Any, limit: int | None) -> Any:
    return batch if limit is None else sliced(batch, 0, max(limit, 0))
