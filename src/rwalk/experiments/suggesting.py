"""Combinations of settings that Optuna suggests, from what came of those before."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from rwalk.errors import MissingExtraError
from rwalk.experiments.loading import repeated, short
from rwalk.experiments.methods import METHODS
from rwalk.experiments.spec import RunSpec
from rwalk.experiments.summary import Row
from rwalk.experiments.tune import BETTER, candidates
from rwalk.experiments.yaml_files import plain_yaml

__all__ = ["AT_ONCE", "RANGE", "Range", "Suggestions", "refuse_repeated", "spaces"]

Range = tuple[float, float]
#: Where λ is looked for if nothing is said of it.
STRENGTHS: Range = (1e-2, 1e5)
AT_ONCE = 4  # fixed, so that the same command suggests the same again and finds its runs finished
NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(f"{NUMBER}:{NUMBER}")


def spaces(entries: Sequence[str], method: str) -> dict[str, Range | list[Any]]:
    """Where to look: ``KEY=LOW:HIGH`` entries as ranges, ``KEY=A,B,C`` as choices; the method's λ if there are none.

    Raises:
        ValueError: An entry has another form, or two have the same key.

    Example:
        >>> spaces(["rwalk.ewc_lambda=0.1:1e3", "heads=single,masked"], "rwalk")
        {'rwalk.ewc_lambda': (0.1, 1000.0), 'heads': ['single', 'masked']}
    """
    refuse_repeated(entries)
    found: dict[str, Range | list[Any]] = {}
    for entry in entries:
        key, equals, text = entry.partition("=")
        if not key or not equals or not text:
            raise ValueError(f"--grid {entry!r}: expected KEY=LOW:HIGH or KEY=A,B,C, such as rwalk.ewc_lambda=0.1:1000")
        if RANGE.fullmatch(text):
            low, high = map(float, text.split(":"))
            if low < 0:
                raise ValueError(f"--grid {entry!r}: {low:g} is below 0: expected two numbers of at least 0")
            if not low < high:
                raise ValueError(f"--grid {entry!r}: expected the lower end first")
            found[key] = (low, high)
        else:
            found[key] = plain_yaml(f"[{text}]")
            if twice := repeated(found[key]):
                raise ValueError(f"--grid {entry!r}: expected different values; {short(twice[0])} is one of the others")
    if not found:
        strength = METHODS[method].strength if method in METHODS else None
        if strength is None:
            raise ValueError(f"method={method!r}: it has no strength to choose; give --grid")
        found[strength] = STRENGTHS
    return found


def refuse_repeated(entries: Sequence[str]) -> None:
    """Refuse ``KEY=VALUES`` entries of which one would replace another.

    Raises:
        ValueError: Two have the same key.
    """
    first: dict[str, str] = {}
    for entry in entries:
        key = entry.partition("=")[0]
        if key in first:
            raise ValueError(
                f"--grid {first[key]!r} and --grid {entry!r} are for one key: give it once, with all its values"
            )
        first[key] = entry


class Suggestions:
    """Asks Optuna's tree-structured Parzen estimator, seeded.

    Args:
        base: Settings that all share.
        where: By key, a range (on a logarithmic scale where it is above 0) or values to choose from.
        metric: What is to be best.

    Raises:
        MissingExtraError: Optuna is not installed.
    """

    def __init__(self, base: Mapping[str, Any], where: Mapping[str, Range | list[Any]], metric: str) -> None:
        try:
            optuna: Any = import_module("optuna")
        except ImportError as error:
            raise MissingExtraError("--search optuna", "optuna", error) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._failed = optuna.trial.TrialState.FAIL
        direction = "maximize" if BETTER[metric] is max else "minimize"
        self._study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=0))
        self._base, self._where, self._metric = dict(base), dict(where), metric
        self._asked: dict[str, Any] = {}

    def ask(self, count: int) -> dict[str, RunSpec]:
        """Specs by label."""
        specs: dict[str, RunSpec] = {}
        for _ in range(count):
            trial = self._study.ask()
            settings = {}
            for key, space in self._where.items():
                if isinstance(space, tuple):
                    value = trial.suggest_float(key, *space, log=space[0] > 0)
                    settings[key] = [float(f"{value:.4g}")]
                else:  # Optuna takes plain values only
                    settings[key] = [space[trial.suggest_categorical(key, range(len(space)))]]
            ((label, spec),) = candidates(self._base, settings).items()
            label = f"{label} #{trial.number}" if label in specs or label in self._asked else label
            specs[label], self._asked[label] = spec, trial
        return specs

    def tell(self, rows: Sequence[Row]) -> None:
        """What came of them."""
        for row in rows:
            spread = None if row.errors else row.spread(self._metric)
            if spread is None:
                self._study.tell(self._asked[row.label], state=self._failed)
            else:
                self._study.tell(self._asked[row.label], spread[0])
