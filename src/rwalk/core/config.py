"""One frozen, self-validating object that says which Riemannian Walk is meant."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

__all__ = ["RWalkConfig"]

PenaltyMode = Literal["gradient", "proximal"]
DampingScale = Literal["absolute", "relative"]
Rectify = Literal["window", "penalty"]
Scaling = Literal["max", "minmax", "none"]
Unfinished = Literal["flush", "drop"]


@dataclass(frozen=True, kw_only=True)
class RWalkConfig:
    r"""Settings of Riemannian Walk; the defaults are the method as published.

    Where the paper is silent and the published codes differ, the choice is a setting here.

    Args:
        ewc_lambda: Strength :math:`\lambda \ge 0` of the penalty (Eq. 8). 0 measures importances without using them.
        ewc_alpha: Weight :math:`\alpha \in [0, 1]` of the *new* squared gradient in the moving Fisher (Eq. 6).
        delta_t: Optimizer steps :math:`\Delta t \ge 1` in a window of the path score. A task shorter than this
            has one window, if ``unfinished="flush"``.
        alpha_warmup: Use :math:`\max(\alpha, 1/t)` at a parameter's t-th update, so that the Fisher starts as a plain
            mean. Without it a small ``ewc_alpha`` remembers the first batch for :math:`1/\alpha` steps.
        damping: :math:`\varepsilon > 0` in the score's denominator. ``None`` is the machine epsilon of the
            state's dtype for an absolute damping and 1 for a relative one.
        damping_scale: ``"absolute"`` adds :math:`\varepsilon` itself. ``"relative"`` adds :math:`\varepsilon` times the
            mean of :math:`\frac12 F \Delta\theta^2` over all parameters, so that the Riemannian distance acts at any
            scale of gradients and steps. In published settings the absolute one swamps it.
        rectify: Where negative scores become zero: ``"window"``, each window's score before it is added, or
            ``"penalty"``, the averaged score when the penalty is built.
        scaling: How Fisher and score are brought to [0, 1] before they are added: ``"max"`` divides by the maximum
            over all parameters, ``"minmax"`` subtracts the minimum first, ``"none"`` leaves them.
        unfinished: What ``consolidate`` does with a window that has not seen ``delta_t`` steps: ``"flush"`` scores
            it as it is, ``"drop"`` forgets it.
        penalty: ``"gradient"`` adds the penalty's gradient to ``.grad`` before the optimizer steps. ``"proximal"``
            applies the penalty implicitly after the step; stable at any ``ewc_lambda``.
        include: Glob patterns (``"encoder.*"``) of the parameter names to protect. Empty means all.
        exclude: Glob patterns of names to leave alone; wins over ``include``.

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
    delta_t: int = 10
    alpha_warmup: bool = False
    damping: float | None = None
    damping_scale: DampingScale = "absolute"
    rectify: Rectify = "penalty"
    scaling: Scaling = "max"
    unfinished: Unfinished = "flush"
    penalty: PenaltyMode = "gradient"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_number(
            "ewc_lambda", self.ewc_lambda, 0.0, math.inf, "a finite number ≥ 0 (strength of the penalty, Eq. 8)"
        )
        _check_number(
            "ewc_alpha", self.ewc_alpha, 0.0, 1.0, "a number in [0, 1] (the weight of the new squared gradient, Eq. 6)"
        )
        if isinstance(self.delta_t, bool) or not isinstance(self.delta_t, int):
            raise TypeError(f"delta_t={self.delta_t!r}: expected an int, the number of optimizer steps in a window")
        if self.delta_t < 1:
            raise ValueError(f"delta_t={self.delta_t!r}: expected at least 1 optimizer step in a window")
        if self.damping is not None:
            _check_number("damping", self.damping, math.ulp(0.0), math.inf, "a finite number > 0, or None")
        if not isinstance(self.alpha_warmup, bool):
            raise TypeError(f"alpha_warmup={self.alpha_warmup!r}: expected True or False")
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

    def replace(self, **changes: Any) -> RWalkConfig:
        """A copy with some settings changed, validated like a new one."""
        return type(self)(**{**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values; ``RWalkConfig.from_dict`` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RWalkConfig:
        """Build from plain values, naming any setting that does not exist.

        Raises:
            ValueError: An unknown setting, or a value outside its range.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown setting {unknown[0]!r}: RWalkConfig knows {', '.join(known)}")
        return cls(**values)


_CHOICES: dict[str, Any] = {
    "damping_scale": DampingScale,
    "rectify": Rectify,
    "scaling": Scaling,
    "unfinished": Unfinished,
    "penalty": PenaltyMode,
}


def _check_number(name: str, value: Any, low: float, high: float, expected: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r}: expected {expected}")
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{name}={value!r}: expected {expected}")
