"""Is it doing anything? What is held, how far it has moved, and how hard the penalty pulls, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rwalk.core import equations as F
from rwalk.core.config import RWalkConfig
from rwalk.core.sharding import local, over_processes, weights_in_sums
from rwalk.core.state import Cohort, Tracked

__all__ = ["Layer", "Report", "layer_of", "layers_of", "loss_told", "report_of", "share_held"]

#: A weight counts as held from this part of the largest importance on.
HELD = 0.1
#: Penalty's gradient over the loss's: below, λ has no effect; above, the new task is hardly learned.
NO_EFFECT, CHOKING = 1e-3, 10.0
#: Steps of a task after which the ratio says something: at the first ones nothing has moved yet.
ENOUGH_STEPS = 10
NO_LOSS = "loss={!r}: expected the loss of the last step, a finite number ≥ 0, or None"
#: Rows of a printed table.
ROWS = 12


@dataclass(frozen=True)
class Layer:
    r"""One layer: the parameters of one module.

    Attributes:
        name: Of the module in the model; a parameter's own name if it belongs to the model itself.
        weights: How many weights it has.
        importance: Its share in the sum of all importances, 0 to 1.
        held: Share of its weights whose importance is at least a tenth of the largest one's.
        distance: :math:`\|\theta - \theta^*\|`, from the anchor.
        drift: That distance over :math:`\|\theta^*\|`.
        penalty: Its part of the penalty, :math:`\lambda \sum_i \Omega_i (\theta_i - \theta^*_i)^2` (Eq. 8).
        ratio: :math:`\|\nabla \text{penalty}\| / \|\nabla \mathcal L\|` at the last step; None where no gradient is
            kept.
        unit_ratio: That ratio if :math:`\lambda` were 1.
    """

    name: str
    weights: int
    importance: float
    held: float
    distance: float
    drift: float
    penalty: float
    ratio: float | None
    unit_ratio: float | None


@dataclass(frozen=True)
class Report:
    """What ``RWalk.report`` returns; ``print`` shows it as a table.

    Attributes:
        backend: What runs the step.
        tasks: That have ended.
        task_steps: Steps of the present task.
        ewc_lambda: Strength of the penalty.
        total: All layers together.
        layers: Each layer, in the model's order.
        loss_share: The penalty's part of loss plus penalty; None if no loss was given.
        warnings: What is likely to be wrong, in sentences.
        penalty_factor: By which the settings multiply ``ewc_lambda``.
    """

    backend: str
    tasks: int
    task_steps: int
    ewc_lambda: float
    total: Layer
    layers: tuple[Layer, ...]
    loss_share: float | None
    warnings: tuple[str, ...]
    penalty_factor: float = 1.0

    @property
    def lambda_at_balance(self) -> float | None:
        """The strength at which the penalty's gradient would be as long as the loss's here; None if not known."""
        return self.lambda_at(1.0)

    def lambda_at(self, ratio: float) -> float | None:
        """The strength at which the penalty's gradient would be so many times as long as the loss's; None if not known.

        Raises:
            ValueError: ``ratio`` is not a finite number > 0.
        """
        if isinstance(ratio, bool) or not (isinstance(ratio, (int, float)) and 0.0 < ratio < math.inf):
            raise ValueError(f"ratio={ratio!r}: expected a finite number > 0, the ratio of the two gradients")
        unit = self.total.unit_ratio
        return ratio / (unit * self.penalty_factor) if unit else None

    def metrics(self) -> dict[str, float]:
        """Figures for a logger, by name; those that are not known are absent."""
        found = {
            "rwalk/tasks": float(self.tasks),
            "rwalk/penalty": self.total.penalty,
            "rwalk/held": self.total.held,
            "rwalk/distance": self.total.distance,
            "rwalk/drift": self.total.drift,
        }
        if self.total.ratio is not None:
            found["rwalk/gradient_ratio"] = self.total.ratio
        if self.loss_share is not None:
            found["rwalk/loss_share"] = self.loss_share
        return found

    def __str__(self) -> str:
        """A table of at most 80 columns, heaviest layers first, and the warnings."""
        heading = f"{'layer':<28}{'weights':>9}{'import.':>9}{'held':>8}{'drift':>8}{'penalty':>10}{'ratio':>8}"
        ranked = sorted(self.layers, key=lambda layer: -layer.importance)
        lines = [
            f"RWalk: {self.tasks} {'task' if self.tasks == 1 else 'tasks'}, {self.task_steps} steps of the next, "
            f"ewc_lambda {self.ewc_lambda:g}, {self.backend}",
            heading,
            *map(_row, ranked[:ROWS]),
        ]
        if len(ranked) > ROWS:
            lines.append(f"… and {len(ranked) - ROWS} layers with less")
        lines.append(_row(self.total))
        lines += [
            "held: weights with at least a tenth of the largest importance",
            "drift: distance from the anchor, over the anchor's norm",
            "ratio: the penalty's gradient over the loss's, at the last step",
        ]
        if self.loss_share is not None:
            lines.append(f"the penalty is {self.loss_share:.1%} of loss and penalty")
        if self.lambda_at_balance is not None:
            lines.append(
                f"to hold tighter, raise ewc_lambda; at {self.lambda_at_balance:.3g} both gradients are equally long"
            )
        return "\n".join([*lines, *(f"warning: {warning}" for warning in self.warnings)])


def loss_told(loss: Tensor | float | None) -> float | None:
    """A loss as a number; whether it is finite and ≥ 0, ``report_of`` sees.

    Raises:
        ValueError: It is no single number.
    """
    if loss is None:
        return None
    try:
        return float(torch.as_tensor(loss).detach())
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(NO_LOSS.format(loss)) from None


def report_of(
    backend: str, counted: tuple[int, int], config: RWalkConfig, layers: Sequence[Layer], total: Layer, *,
    loss: float | None, warnings: Iterable[str],
) -> Report:  # fmt: skip
    """Put a report together, with the warnings that its own figures give rise to.

    Raises:
        ValueError: ``loss`` is not a finite number ≥ 0.
    """
    if loss is not None and not (math.isfinite(loss) and loss >= 0.0):
        raise ValueError(NO_LOSS.format(loss))
    tasks, task_steps = counted
    whole = None if loss is None else loss + total.penalty
    share = total.penalty / whole if whole else None
    told = [*warnings, *_figures_tell(tasks, task_steps, config, total)]
    return Report(
        backend, tasks, task_steps, config.ewc_lambda, total, tuple(layers), share, tuple(told), config.penalty_factor
    )


def _figures_tell(tasks: int, task_steps: int, config: RWalkConfig, total: Layer) -> list[str]:
    if not tasks:
        return ["nothing is protected yet: call consolidate() at the end of a task, or protect(batches)"]
    if not config.ewc_lambda:
        return ["ewc_lambda is 0: nothing is held"]
    if not total.importance:
        return ["every importance is 0: no gradient of the past task reached a protected weight"]
    ratio = total.ratio if task_steps >= ENOUGH_STEPS else None
    better = f" ({config.ewc_lambda / ratio:.3g} would make them equal)" if ratio else ""
    if ratio is not None and ratio < NO_EFFECT:
        return [f"the penalty has no effect: its gradient is {ratio:.1e} of the loss's. Raise ewc_lambda{better}"]
    if ratio is not None and ratio > CHOKING:
        return [
            f"the penalty chokes the new task: its gradient is {ratio:.3g} times the loss's. Lower ewc_lambda{better}"
        ]
    return []


@torch.no_grad()
def layers_of(
    cohorts: Sequence[Cohort], config: RWalkConfig, last_step: Collection[Tracked] | None, *, is_settled: bool
) -> tuple[list[Layer], Layer]:
    """Measure each layer, and all of them together.

    A collective operation where parameters are sharded.

    Args:
        cohorts: All parameters that have state.
        config: The settings.
        last_step: Who took part in the last step, whose gradient is kept; None if no step of this task was seen: then
            every kept gradient counts.
        is_settled: That step is in the state already, and the weights it was taken at are not kept: they are taken as
            they are now.
    """
    entries = [entry for cohort in cohorts for entry in cohort.entries]
    if not entries:
        return [], _layer("all", torch.zeros(8, dtype=torch.float64), 0.0, 0.0)
    parameters = [entry.parameter for entry in entries]
    has_anchor = any("importance" in cohort.bucket.flat for cohort in cohorts)
    peak = torch.tensor(0.0, dtype=torch.float64)
    if has_anchor:
        tops = [cohort.bucket.require("importance")[0].max().double().cpu() for cohort in cohorts if cohort.elements]
        peak = torch.stack([peak, *tops]).max()
        peak = over_processes(peak, parameters, "max").cpu()
    threshold = HELD * float(peak)
    rows = [
        _measure(cohort, index, config.strength, threshold, last_step, has_anchor=has_anchor, is_settled=is_settled)
        for cohort in cohorts
        for index in range(len(cohort.entries))
    ]
    weights = torch.tensor(weights_in_sums(parameters), dtype=torch.float64)
    sums = over_processes(torch.stack(rows).cpu() * weights[:, None], parameters, "sum").cpu()
    of_layer: dict[str, list[int]] = {}
    for index, entry in enumerate(entries):
        of_layer.setdefault(layer_of(entry.name), []).append(index)
    whole = float(sums[:, 1].sum())
    layers = [_layer(name, sums[members].sum(0), whole, config.strength) for name, members in of_layer.items()]
    return layers, _layer("all", sums.sum(0), whole, config.strength)


def layer_of(name: str) -> str:
    """The module that a parameter belongs to, by its name; its own name if that is the model itself."""
    return name.rpartition(".")[0] or name


def share_held(cohorts: Sequence[Cohort]) -> float:
    """Share of these weights, in this process, that are held."""
    values = [cohort.bucket.flat["importance"] for cohort in cohorts if "importance" in cohort.bucket.flat]
    count = sum(value.numel() for value in values)
    peak = max((float(value.max()) for value in values if value.numel()), default=0.0)
    return sum(int((value >= HELD * peak).sum()) for value in values) / count if count and peak else 0.0


def _measure(
    cohort: Cohort,
    index: int,
    strength: float,
    threshold: float,
    last_step: Collection[Tracked] | None,
    *,
    has_anchor: bool,
    is_settled: bool,
) -> Tensor:
    """Elements, Σ Ω, elements held, ‖θ − θ*‖², ‖θ*‖², penalty, ‖∇penalty‖² at λ = 1, ‖∇L‖²."""
    entry, dtype = cohort.entries[index], cohort.bucket.dtype
    shape = cohort.bucket.shapes[entry]
    found = torch.zeros(8, dtype=torch.float64, device=cohort.bucket.device)
    found[0] = shape.numel()
    if not shape.numel():
        return found
    stepped = last_step is None or entry in last_step
    if stepped and "gradient" in cohort.bucket.flat:
        found[7] = _squared(cohort.views("gradient")[index])
    if not has_anchor:
        return found
    importance, anchor = (cohort.views(quantity)[index].to(dtype) for quantity in ("importance", "anchor"))
    weights = local(entry.parameter).detach()
    moved = weights.to(dtype) - anchor
    found[1] = importance.sum(dtype=torch.float64)
    found[2] = ((importance >= threshold) & (importance > 0)).sum()
    found[3], found[4] = _squared(moved), _squared(anchor)
    found[5] = F.penalty(importance, weights.to(dtype), anchor, strength)
    if stepped:
        there = weights if is_settled else cohort.views("before")[index]
        found[6] = _squared(F.penalty_gradient(importance, there.to(dtype), anchor, 1.0))
    return found


def _squared(values: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(values, dtype=torch.float64)
    return norm.square()


def _layer(name: str, sums: Tensor, whole: float, strength: float) -> Layer:
    count, importance, held, moved, anchored, penalty, pull, gradient = sums.tolist()
    known = gradient > 0.0 and math.isfinite(gradient) and math.isfinite(pull)
    unit = math.sqrt(pull / gradient) if known else None
    return Layer(
        name=name,
        weights=round(count),
        importance=importance / whole if whole else 0.0,
        held=held / count if count else 0.0,
        distance=math.sqrt(moved),
        drift=math.sqrt(moved / anchored) if anchored else 0.0,
        penalty=penalty,
        ratio=None if unit is None else strength * unit,
        unit_ratio=unit,
    )


def _row(layer: Layer) -> str:
    name = layer.name if len(layer.name) <= 27 else "…" + layer.name[-26:]
    ratio = "–" if layer.ratio is None else f"{layer.ratio:.2g}"
    return (
        f"{name:<28}{_count(layer.weights):>9}{layer.importance:>9.1%}{layer.held:>8.1%}{layer.drift:>8.2g}"
        f"{layer.penalty:>10.3g}{ratio:>8}"
    )


def _count(number: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= 10 * size:
            return f"{number / size:.0f}{unit}"
    return str(number)
