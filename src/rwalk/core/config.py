"""One frozen, self-validating object that says which Riemannian Walk is meant."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, Literal, get_args

import torch

from rwalk.core.presets import PRESETS
from rwalk.errors import RWalkError, closest

__all__ = ["RWalkConfig"]

PenaltyMode = Literal["gradient", "proximal"]
ProximalRate = Literal["lr", "optimizer"]
DampingScale = Literal["absolute", "relative"]
FisherSource = Literal["step", "loader", "samples"]
FisherStart = Literal["first", "zero"]
FisherBoundary = Literal["keep", "reset"]
FisherInScore = Literal["window_end", "window_start"]
WindowPhase = Literal["task", "run"]
Unfinished = Literal["flush", "drop", "carry"]
Distance = Literal["riemannian", "euclidean"]
Rectify = Literal["window", "task", "penalty"]
ScoreAverage = Literal["mean", "mean_from_zero", "sum", "accumulate", "latest"]
Scaling = Literal["max", "minmax", "sum", "none"]
Terms = Literal["both", "fisher", "score"]
Combine = Literal["replace", "sum", "mean", "max"]
Anchors = Literal["weighted", "latest"]
AnchorAt = Literal["last", "average"]
BackendName = Literal["auto", "eager", "fused"]
StateDtype = Literal["float32", "bfloat16"]
Nonfinite = Literal["skip", "raise"]

#: What decides which tensors there are: settings, and last what follows from several, with those.
LAYOUT: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in ("include", "exclude", "fisher_in_score", "state_dtype", "backend")},
    "window": ("delta_t", "damping_scale"),
    "keeps_task_score": ("rectify", "score_average"),
}

#: Settings that older versions had, which changed no result.
RETIRED = frozenset({"offload"})


@dataclass(frozen=True, kw_only=True)
class RWalkConfig:
    r"""Settings of Riemannian Walk; the defaults are the method as published.

    Where the paper is silent and the published codes differ, the choice is a setting here, and the class methods
    (``RWalkConfig.avalanche()``, …) choose as each of those codes does.

    Args:
        ewc_lambda: Strength :math:`\lambda \ge 0` of the penalty (Eq. 8). 0 measures importances without using them.
        ewc_alpha: Weight :math:`\alpha \in [0, 1]` of the *new* squared gradient in the moving Fisher (Eq. 6).
        delta_t: Optimizer steps :math:`\Delta t \ge 1` in a window of the path score; None makes each task one window.
        alpha_warmup: Use :math:`\max(\alpha, 1/t)` at a parameter's t-th update, so that the Fisher starts as a plain
            mean. Without it a small ``ewc_alpha`` remembers the first batch for :math:`1/\alpha` steps. Updates are
            counted up to :math:`1/\alpha`, of which the mean knows: under a smaller one later it goes on from there.
        fisher_source: ``"step"``: the gradients of training. ``"loader"``: one pass over a data loader given to
            ``consolidate``, with the model's own predictions as labels. ``"samples"``: such a pass too, but with the
            squared gradients of single samples and labels drawn from the model, as ``protect`` takes it.
        fisher_samples: With ``"samples"``, how many of the task's samples are looked at; None: all that are given.
        fisher_every: Steps from one update of the Fisher to the next.
        fisher_start: ``"first"``: :math:`F = g^2` at the first update. ``"zero"``: the average starts from 0.
        fisher_boundary: At a task's end, ``"keep"`` the running Fisher or ``"reset"`` it.
        fisher_in_score: Which Fisher measures a window's distance: that of its end, or that of its start (one buffer
            more).
        distance: ``"riemannian"``: :math:`F\,\Delta\theta^2`. ``"euclidean"``: :math:`\Delta\theta^2` (Path Integral).
        distance_factor: What the distance is multiplied by; one half in the second-order KL divergence.
        damping: :math:`\varepsilon > 0` in the score's denominator. ``None`` is float32's machine epsilon,
            :math:`2^{-23}`, for an absolute damping and 1 for a relative one. ``"machine"`` is the epsilon of torch's
            default dtype, as Avalanche takes it.
        damping_scale: ``"absolute"`` adds :math:`\varepsilon` itself. ``"relative"`` adds :math:`\varepsilon` times the
            mean distance over all parameters, so that the distance acts at any scale of gradients and steps. In
            published settings the absolute one swamps it.
        rectify: Where negative scores become zero: ``"window"``, each window's before it is added; ``"task"``, the
            task's before it is averaged; ``"penalty"``, the average when the penalty is built.
        window_phase: ``"task"`` counts windows from each task's first step, ``"run"`` from the run's.
        unfinished: What ``consolidate`` does with a window that is not full: ``"flush"`` scores it as it is,
            ``"drop"`` forgets it, ``"carry"`` lets it go on into the next task.
        score_average: Averaged score from old and new: ``"mean"``, the first task's kept whole; ``"mean_from_zero"``,
            the first task's halved; ``"sum"``; ``"accumulate"``, 1.5 old + 0.5 new, the first kept; ``"latest"``, the
            new one alone, for importances that ``combine`` adds up.
        scaling: How Fisher and score are brought to [0, 1] before they are added: ``"max"`` divides by the maximum
            over all parameters, ``"minmax"`` subtracts the minimum first, ``"none"`` leaves them. ``"sum"`` divides by
            the sum over all parameters: what is left are shares, which no single weight, no single window and no number
            of weights that matter to nothing can move. The penalty is then :math:`\lambda` times the mean square by
            which weights moved, each weighed by its share, and :math:`\lambda` is in the thousands.
        terms: What the penalty weighs by: ``"both"`` Fisher and score, or one of them.
        combine: How importances of a task join those of past ones. ``"replace"``, as published: the running Fisher is
            what remembers, and forgets at the rate ``ewc_alpha``. ``"sum"``: they add up, and each weight's anchor is
            the mean of its anchors weighted by importance, which is the sum of all tasks' penalties. ``"mean"``: that
            over the number of tasks, so that the penalty is as strong after many tasks as after one. ``"max"``: the
            larger one counts, from where the weights are now.
        anchors: With ``combine="sum"`` or ``"mean"``, where past importances hold: ``"weighted"`` keeps the sum of all
            tasks' penalties. ``"latest"`` moves all of them to this task's, as online Laplace does: the last task's
            minimum took the older penalties into account already.
        anchor_at: Which weights a task's anchors are: ``"last"``, those that its last step led to, or ``"average"``, an
            average of those on the way in which late ones count most (``rwalk.core.averaging``). The steps' noise
            cancels out there, so that it is nearer the minimum around which the penalty is an expansion. The model
            itself stays where it is. Takes another float a parameter, and no CUDA graph.
        average_every: Steps from one iterate that is averaged to the next.
        decay: What importances of past tasks are multiplied by before; with all but ``"replace"``.
        penalty: ``"gradient"`` adds the penalty's gradient to ``.grad`` before the optimizer steps. ``"proximal"``
            applies the penalty implicitly after the step; stable at any ``ewc_lambda``.
        proximal_rate: How far a proximal step goes: by the learning rate (``"lr"``), or as far as the optimizer's own
            step goes for each weight (``"optimizer"``): under Adam, RMSprop and Adagrad that is the learning rate over
            the root of the second moment, and where momentum adds up (SGD's, RMSprop's) :math:`1/(1-\beta)` times as
            far, so that :math:`\lambda` weighs loss against penalty as it does under plain SGD.
        penalty_factor: What :math:`\lambda` is multiplied by; some codes have one half.
        include: Glob patterns (``"encoder.*"``) of the parameter names to protect. Empty means all.
        exclude: Glob patterns of names to leave alone; wins over ``include``.
        backend: ``"fused"``: one pass over memory for a step; on the CPU in C, compiled at the first step (a few
            seconds, once a machine), on GPUs in Triton. ``"eager"``: torch's own operations, on any device.
            ``"auto"``: fused where that works, else eager, with the reason logged once.
        state_dtype: ``"bfloat16"`` (or ``torch.bfloat16``) keeps all that tolerates it in half the memory: Fisher,
            scores, loss change and importances, but not the weights of past moments. ``"float32"``: nothing.
        nonfinite: A step whose gradient is not finite, or has a square that is not, leaves no trace in the state. With
            ``"skip"`` that is all (``RWalk.skipped`` counts it, the log tells once); ``"raise"`` stops before the
            optimizer steps, which on a GPU waits for the device at each step.

    Raises:
        TypeError: A setting has the wrong type.
        ValueError: A setting is outside its range.

    Example:
        >>> RWalkConfig(ewc_lambda=10.0).replace(delta_t=50).delta_t
        50
        >>> RWalkConfig(ewc_alpha=1.5)
        Traceback (most recent call last):
        ...
        ValueError: ewc_alpha=1.5: expected a number in [0, 1] (the weight of the new squared gradient, Eq. 6)

    References:
        Chaudhry et al., *Riemannian Walk for Incremental Learning*, ECCV 2018, arXiv:1801.10112.
    """

    ewc_lambda: float = 0.1
    ewc_alpha: float = 0.9
    delta_t: int | None = 10
    alpha_warmup: bool = False
    fisher_source: FisherSource = "step"
    fisher_samples: int | None = None
    fisher_every: int = 1
    fisher_start: FisherStart = "first"
    fisher_boundary: FisherBoundary = "keep"
    fisher_in_score: FisherInScore = "window_end"
    distance: Distance = "riemannian"
    distance_factor: float = 0.5
    damping: float | Literal["machine"] | None = None
    damping_scale: DampingScale = "absolute"
    rectify: Rectify = "penalty"
    window_phase: WindowPhase = "task"
    unfinished: Unfinished = "flush"
    score_average: ScoreAverage = "mean"
    scaling: Scaling = "max"
    terms: Terms = "both"
    combine: Combine = "replace"
    anchors: Anchors = "weighted"
    anchor_at: AnchorAt = "last"
    average_every: int = 10
    decay: float = 1.0
    penalty: PenaltyMode = "gradient"
    proximal_rate: ProximalRate = "lr"
    penalty_factor: float = 1.0
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    backend: BackendName = "auto"
    state_dtype: StateDtype | torch.dtype = "float32"
    nonfinite: Nonfinite = "skip"

    def __post_init__(self) -> None:
        for name, (low, high, expected) in _NUMBERS.items():
            value = getattr(self, name)
            if name != "damping" or value not in (None, "machine"):
                object.__setattr__(self, name, _number(name, value, low, high, expected))
        if self.delta_t is not None:
            _check_count("delta_t", self.delta_t, "optimizer step in a window (None: each task is one)")
        if self.fisher_samples is not None:
            _check_count("fisher_samples", self.fisher_samples, "sample of each task (None: all)")
        _check_count("fisher_every", self.fisher_every, "step from one update of the Fisher to the next")
        _check_count("average_every", self.average_every, "step from one iterate that is averaged to the next")
        if not isinstance(self.alpha_warmup, bool):
            raise TypeError(f"alpha_warmup={self.alpha_warmup!r}: expected True or False")
        if isinstance(self.state_dtype, torch.dtype):
            object.__setattr__(self, "state_dtype", str(self.state_dtype).removeprefix("torch."))
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(choices):
                raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, get_args(choices)))}")
        for name in ("include", "exclude"):
            patterns = getattr(self, name)
            sequence = isinstance(patterns, list | tuple)
            if not sequence or not all(isinstance(pattern, str) for pattern in patterns):
                raise TypeError(f"{name}={patterns!r}: expected a sequence of glob patterns, such as ('encoder.*',)")
            object.__setattr__(self, name, tuple(patterns))

    @cached_property
    def strength(self) -> float:
        """What the penalty is multiplied by."""
        return self.ewc_lambda * self.penalty_factor

    @cached_property
    def keeps_task_score(self) -> bool:
        """Whether a task's score has to be kept apart from the old one until both are averaged."""
        return self.rectify == "task" or self.score_average in ("accumulate", "latest")

    @cached_property
    def scored(self) -> Literal["score", "task_score"]:
        """The quantity to which windows are added."""
        return "task_score" if self.keeps_task_score else "score"

    @cached_property
    def window(self) -> Literal["step", "start", "displaced"]:
        """How a window's displacement is known.

        It is the step's own (then nothing is kept from step to step), the difference from the weights at the window's
        start, or a running sum, which needs less precision.
        """
        one_step = self.delta_t == 1 and self.damping_scale == "absolute" and self.fisher_in_score == "window_end"
        if one_step:
            return "step"
        return "displaced" if self.state_dtype == "bfloat16" else "start"

    def check_successor(self, config: RWalkConfig) -> None:
        """Make sure that the state of this config serves another.

        Raises:
            RWalkError: It is laid out in another way.
        """
        for decides, names in LAYOUT.items():
            if getattr(self, decides) != getattr(config, decides):
                changes = [(name, getattr(self, name), getattr(config, name)) for name in names]
                name, old, new = next(change for change in changes if change[1] != change[2])
                raise RWalkError(
                    f"config: {name} decides how state is kept and cannot change from {old!r} to {new!r} in a running "
                    "RWalk; load() a saved state with the new config"
                )

    @property
    def damping_value(self) -> float:
        """What ``damping`` stands for, as a number."""
        if self.damping == "machine":
            return torch.finfo(torch.get_default_dtype()).eps
        default = torch.finfo(torch.float32).eps if self.damping_scale == "absolute" else 1.0
        return default if self.damping is None else self.damping

    def replace(self, **changes: Any) -> RWalkConfig:
        """A copy with some settings changed, validated like a new one."""
        return type(self)(**{**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values; ``RWalkConfig.from_dict`` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RWalkConfig:
        """Build from plain values, naming any setting that does not exist. Those of older versions are left out.

        Raises:
            ValueError: An unknown setting, or a value outside its range.
        """
        known = [field.name for field in fields(cls)]
        values = {name: value for name, value in values.items() if name not in RETIRED}
        unknown = sorted(set(values) - set(known))
        if unknown:
            hint = closest(unknown[0], known)
            raise ValueError(f"unknown setting {unknown[0]!r}{hint}: RWalkConfig knows {', '.join(known)}")
        return cls(**values)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> RWalkConfig:
        """The settings of a published RWalk, or of a method that RWalk joins, by name.

        Args:
            name: One of ``rwalk.core.presets.PRESETS``.
            changes: Settings that differ.

        Raises:
            ValueError: Unknown name (the known ones are listed), or a bad setting.
        """
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}{closest(name, PRESETS)}: choose one of {', '.join(PRESETS)}")
        return cls.from_dict({**PRESETS[name], **changes})

    @classmethod
    def paper(cls, **changes: Any) -> RWalkConfig:
        """The paper's equations; same as the defaults."""
        return cls.preset("paper", **changes)

    @classmethod
    def avalanche(cls, **changes: Any) -> RWalkConfig:
        """As ``avalanche.training.plugins.RWalkPlugin`` 0.6.0 computes, without its faults."""
        return cls.preset("avalanche", **changes)

    @classmethod
    def facil(cls, **changes: Any) -> RWalkConfig:
        """As FACIL's ``r_walk.py`` computes; ``consolidate`` needs the task's data. Exclude heads, as FACIL does."""
        return cls.preset("facil", **changes)

    @classmethod
    def agem(cls, **changes: Any) -> RWalkConfig:
        """The authors' TensorFlow code of 2018 on MNIST, but for the scale of its Fisher (see ``docs/method.md``)."""
        return cls.preset("agem", **changes)

    @classmethod
    def capymoa(cls, **changes: Any) -> RWalkConfig:
        """As CapyMOA's ``RWalk`` computes."""
        return cls.preset("capymoa", **changes)

    @classmethod
    def ewc_plus_plus(cls, **changes: Any) -> RWalkConfig:
        """EWC++: the moving Fisher alone weighs the penalty."""
        return cls.preset("ewc_plus_plus", **changes)

    @classmethod
    def path_integral(cls, **changes: Any) -> RWalkConfig:
        """Path Integral (Synaptic Intelligence): scores over Euclidean distance, whole tasks, summed."""
        return cls.preset("path_integral", **changes)

    @classmethod
    def laplace(cls, **changes: Any) -> RWalkConfig:
        """For streams of many tasks: all count alike, about an average of the last one's weights, with implicit steps.

        ``consolidate`` needs the task's data; ``docs/laboratory.md`` derives it and says where it is ahead.
        """
        return cls.preset("laplace", **changes)


_CHOICES: dict[str, Any] = {
    "fisher_source": FisherSource,
    "fisher_start": FisherStart,
    "fisher_boundary": FisherBoundary,
    "fisher_in_score": FisherInScore,
    "distance": Distance,
    "damping_scale": DampingScale,
    "rectify": Rectify,
    "window_phase": WindowPhase,
    "unfinished": Unfinished,
    "score_average": ScoreAverage,
    "scaling": Scaling,
    "terms": Terms,
    "combine": Combine,
    "anchors": Anchors,
    "anchor_at": AnchorAt,
    "penalty": PenaltyMode,
    "proximal_rate": ProximalRate,
    "backend": BackendName,
    "state_dtype": StateDtype,
    "nonfinite": Nonfinite,
}


def _check_count(name: str, value: Any, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r}: expected a whole number ≥ 1")
    if value < 1:
        raise ValueError(f"{name}={value!r}: expected at least 1 {what}")


#: The least and the largest value, and what is expected.
_NUMBERS = {
    "ewc_lambda": (0.0, math.inf, "a finite number ≥ 0 (strength of the penalty, Eq. 8)"),
    "ewc_alpha": (0.0, 1.0, "a number in [0, 1] (the weight of the new squared gradient, Eq. 6)"),
    "distance_factor": (math.ulp(0.0), math.inf, "a finite number > 0"),
    "penalty_factor": (math.ulp(0.0), math.inf, "a finite number > 0"),
    "decay": (0.0, 1.0, "a number in [0, 1]"),
    "damping": (math.ulp(0.0), math.inf, "a finite number > 0, 'machine' or None"),
}


def _number(name: str, value: Any, low: float, high: float, expected: str) -> float:
    """A float, so that 1 and 1.0 are the same setting, in the names of runs too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r}: expected {expected}")
    if not low <= value <= high or value in (math.inf, -math.inf) or value > sys.float_info.max:
        raise ValueError(f"{name}={value!r}: expected {expected}")
    return float(value)
