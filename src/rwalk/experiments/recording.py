"""What a run keeps of its course, in a few kilobytes: loss and penalty, and each layer's importance after each task."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from rwalk.core import RWalk
from rwalk.core.names import named_parameters
from rwalk.core.report import layer_of
from rwalk.metrics.running import RunningMean
from rwalk.training import BasePlugin, RWalkPlugin

__all__ = ["Course", "LayerRecord", "Record", "Recorder"]

#: Points of a course within an experience, and in all; iterations that lie between two of them at least.
WITHIN, POINTS, APART = 10, 200, 5
#: Experiences after which layers are looked at, and layers that are kept.
LOOKS, LAYERS = 50, 100

Number = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**53)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Course(_Part):
    """Training on one experience.

    Attributes:
        experience: Which, from 0.
        step: Iterations of this experience.
        loss: Mean since the point before, without the penalty; None where it was not finite.
        penalty: At that iteration; None for methods without one, and before anything is protected.
    """

    experience: Count
    step: list[Count]
    loss: list[Number | None]
    penalty: list[Number | None]


class LayerRecord(_Part):
    """One layer, after each of ``Record.looks``; None where it was not there.

    Attributes:
        name: Of its module.
        weights: How many it has.
        importance: Its share in the sum of all importances of the penalty.
        fisher: Its share in the sum of the running Fisher.
        score: Its share in the sum of the running path score.
        held: Share of its weights with at least a tenth of the largest importance.
        drift: Distance from the anchor over the anchor's norm, at the experience's end.
    """

    name: Annotated[str, Field(max_length=1000)]
    weights: Count
    importance: list[Number | None]
    fisher: list[Number | None]
    score: list[Number | None]
    held: list[Number | None]
    drift: list[Number | None]


class Record(_Part):
    """The course of a run.

    Attributes:
        course: Each experience that was followed.
        looks: Experiences after which layers were looked at, from 0.
        layers: In the model's order; those that are too many are left out, the lightest first.
    """

    course: Annotated[list[Course], Field(max_length=10_000)] = []
    looks: Annotated[list[Count], Field(max_length=10_000)] = []
    layers: Annotated[list[LayerRecord], Field(max_length=10_000)] = []

    @model_validator(mode="after")
    def _as_long_as_they_should_be(self) -> Record:
        if any(not len(course.step) == len(course.loss) == len(course.penalty) for course in self.course):
            raise ValueError("course: step, loss and penalty differ in length")
        columns = ("importance", "fisher", "score", "held", "drift")
        if any(len(getattr(layer, column)) != len(self.looks) for layer in self.layers for column in columns):
            raise ValueError(f"layers: expected {len(self.looks)} values each, one for each of looks")
        return self


class Recorder(BasePlugin):
    """Keeps the course of a run. It comes before the method's own plugin, so that it sees a task before it ends."""

    def __init__(self) -> None:
        self._course: list[dict[str, Any]] = []
        self._looks: list[int] = []
        self._seen: list[dict[str, list[float | None]]] = []
        self._weights: dict[str, int] = {}
        self._loss, self._every, self._anchors = RunningMean(), 0, dict[str, Tensor]()

    def record(self) -> dict[str, Any]:
        """What was kept, as plain values that make a ``Record``."""
        last = self._seen[-1] if self._seen else {}
        heaviest = sorted(self._weights, key=lambda name: -((last.get(name) or [None])[0] or 0.0))[:LAYERS]
        layers = []
        for name in (name for name in self._weights if name in heaviest):
            columns = zip(*(seen.get(name, [None] * 5) for seen in self._seen), strict=True)
            found = dict(zip(("importance", "fisher", "score", "held", "drift"), map(list, columns), strict=True))
            layers.append({"name": name[:1000], "weights": self._weights[name], **found})
        return {"course": self._course, "looks": self._looks, "layers": layers}

    def state_dict(self) -> dict[str, Any]:
        """What was kept so far."""
        kept = {"course": self._course, "looks": self._looks, "seen": self._seen, "weights": self._weights}
        return copy.deepcopy(kept)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from there."""
        kept = copy.deepcopy(dict(state_dict))
        self._course, self._looks, self._seen = kept["course"], kept["looks"], kept["seen"]
        self._weights = kept["weights"]

    def moment_dict(self, strategy: Any) -> dict[str, Any]:
        """The loss since the last point."""
        return self._loss.state_dict()

    def load_moment_dict(self, strategy: Any, moment: dict[str, Any]) -> None:
        """Go on counting."""
        self._loss = RunningMean()
        self._loss.load_state_dict(moment)

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """A new course."""
        count, place = _count(strategy), strategy.experience.current_experience
        total = strategy.train_epochs * len(strategy.dataloader)
        within = max(1, min(WITHIN, POINTS // count, total // APART))
        self._every = 0 if place % math.ceil(count / POINTS) else max(1, total // within)
        self._loss, self._anchors = RunningMean(), {}
        if self._every:
            self._course.append({"experience": place, "step": [], "loss": [], "penalty": []})

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        """Count the loss, and now and then take it down with the penalty."""
        if not self._every:
            return
        self._loss.add_mean(strategy.loss)
        step = strategy.clock.train_exp_iterations + 1
        if step % self._every == 0:
            course, rwalk = self._course[-1], _core(strategy)
            course["step"].append(step)
            course["loss"].append(_short(float(self._loss)))
            course["penalty"].append(None if rwalk is None or not rwalk.tasks else _short(_penalty(rwalk)))
            self._loss = RunningMean()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        """Before the task ends: where weights were held. They may yet be averaged, so that they are looked at later."""
        rwalk = _core(strategy)
        if rwalk is not None and rwalk.tasks and self._looks_now(strategy):
            self._anchors = rwalk.anchors()

    def after_training(self, strategy: Any, **kwargs: Any) -> None:
        """After it has ended: where the importance is now."""
        rwalk = _core(strategy)
        if rwalk is None or not rwalk.tasks or not self._looks_now(strategy):
            return
        layers = rwalk.report().layers
        fisher, score = (_shares(rwalk.importances(kind)) for kind in ("fisher", "score"))
        drift, self._anchors = _drift(strategy.model, self._anchors), {}
        self._weights |= {layer.name: layer.weights for layer in layers}
        self._looks.append(strategy.experience.current_experience)
        parts = {
            layer.name: (
                layer.importance, fisher.get(layer.name), score.get(layer.name), layer.held, drift.get(layer.name)
            )
            for layer in layers
        }  # fmt: skip
        self._seen.append({name: [_short(value) for value in values] for name, values in parts.items()})

    def _looks_now(self, strategy: Any) -> bool:
        count, place = _count(strategy), strategy.experience.current_experience
        return bool(place == count - 1 or (place + 1) % math.ceil(count / LOOKS) == 0)


def _core(strategy: Any) -> RWalk | None:
    return next((plugin.rwalk for plugin in strategy.plugins if isinstance(plugin, RWalkPlugin)), None)


def _count(strategy: Any) -> int:
    return max(1, len(strategy.experience.origin_stream))


@torch.no_grad()
def _penalty(rwalk: RWalk) -> float:
    return float(rwalk.penalty())


def _drift(model: nn.Module, anchors: Mapping[str, Tensor]) -> dict[str, float]:
    """Each layer's distance from its anchors over their norm; 0 where that is 0."""
    weights, sums = named_parameters(model), dict[str, tuple[float, float]]()
    for name, anchor in anchors.items():
        if name not in weights:  # it has left the model
            continue
        moved, held = sums.get(layer_of(name), (0.0, 0.0))
        distance = weights[name].detach().to(anchor.dtype) - anchor
        sums[layer_of(name)] = (moved + _squared(distance), held + _squared(anchor))
    return {name: math.sqrt(moved / held) if held else 0.0 for name, (moved, held) in sums.items()}


def _squared(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2


def _shares(values: Mapping[str, Tensor]) -> dict[str, float]:
    """Each layer's part of the whole; a path score may be negative where nothing rectifies it: that counts as none."""
    sums: dict[str, float] = {}
    for name, value in values.items():
        layer = layer_of(name)
        sums[layer] = sums.get(layer, 0.0) + float(value.sum(dtype=torch.float64))
    whole = sum(max(0.0, value) for value in sums.values())
    return {name: max(0.0, value) / whole for name, value in sums.items()} if whole else {}


def _short(value: float | None) -> float | None:
    """Four digits are enough to look at."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
