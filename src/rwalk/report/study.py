"""What a report is about: runs by label, and what was computed of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rwalk.experiments.loading import differing, flat
from rwalk.experiments.methods import is_strength
from rwalk.experiments.recording import Record
from rwalk.experiments.summary import Difference
from rwalk.report.stored import StoredSearch

__all__ = ["NAMES", "Group", "Run", "Study", "readable", "shown"]

#: What metrics are called, and whether more of one is better.
NAMES = {
    "average_accuracy": ("average accuracy", True),
    "forgetting": ("forgetting", False),
    "intransigence": ("intransigence", False),
    "learning_accuracy": ("learning accuracy", True),
    "backward_transfer": ("backward transfer", True),
}
#: Told only where a tuning chose by it: without tests ahead it is forgetting with another sign.
IF_CHOSEN = {"backward_transfer"}
#: Settings that have a sign, beside strengths.
SIGNS = {"rwalk.ewc_alpha": "α", "rwalk.delta_t": "Δt"}


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        seed: Its seed.
        metrics: By name, fractions; None where one is not defined.
        seconds: Of training and evaluation.
        matrix: Accuracy on task k (column) after task i (row), fractions; None where only figures are stored.
        record: Its course, if it kept one.
        folder: Where it is stored.
    """

    seed: int
    metrics: Mapping[str, float | None]
    seconds: float
    matrix: Sequence[Sequence[float | None]] | None = None
    record: Record | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Group:
    """All runs of a label: the same settings with different seeds.

    Attributes:
        label: What it is called.
        config: Its settings.
        runs: By seed.
        errors: Why others failed, by seed.
        published: By metric, a published value (a fraction) and its standard deviation, if known.
        differences: By metric, this label less the one that all are compared with.
        tuned: Whether its strength was chosen for the benchmark; None where that is not known.
    """

    label: str
    config: Mapping[str, Any]
    runs: Sequence[Run]
    errors: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    differences: Mapping[str, Difference] = field(default_factory=dict)
    tuned: bool | None = None

    def values(self, metric: str) -> list[float]:
        """A metric of each run that has it."""
        return [value for run in self.runs if (value := run.metrics.get(metric)) is not None]

    def spread(self, metric: str) -> tuple[float, float | None] | None:
        """Mean and sample standard deviation, which a single run has not; None where no run has the metric."""
        values = self.values(metric)
        return (mean(values), stdev(values) if len(values) > 1 else None) if values else None


@dataclass(frozen=True)
class Study:
    """Everything that one report tells.

    Attributes:
        kind: ``run``, ``comparison``, ``tuning``, ``reproduction``, ``sweep`` or ``runs``.
        title: What it is called where no finding is.
        groups: By label, in their order.
        against: The label that others are compared with.
        best: The label that a tuning chose.
        metric: What it chose by.
        source: Where figures were published.
        versions: Of Python and packages; several where runs differ.
        commands: What runs it again.
        notes: What a reader has to know, such as files that could not be read.
        wall_seconds: From the first run to the last, where that is stored.
        searches: How λ was looked for task by task, if it was.
    """

    kind: str
    title: str
    groups: Sequence[Group]
    against: str | None = None
    best: str | None = None
    metric: str | None = None
    source: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()
    notes: Sequence[str] = ()
    wall_seconds: float | None = None
    searches: Sequence[StoredSearch] = ()

    @property
    def told(self) -> list[str]:
        """Those of ``NAMES`` that are told of here."""
        return [name for name in NAMES if name not in IF_CHOSEN or name == self.metric]

    @property
    def metrics(self) -> list[str]:
        """Those of them that some run has."""
        return [name for name in self.told if any(group.values(name) for group in self.groups)]

    @property
    def seeds(self) -> int:
        """The most seeds that a label has."""
        return max((len(group.runs) for group in self.groups), default=0)

    @property
    def benchmarks(self) -> dict[str, list[Group]]:
        """Labels by what they learn: accuracies of different data are not ranked."""
        found: dict[str, list[Group]] = {}
        for group in self.groups:
            if group.config:
                found.setdefault(str(group.config.get("benchmark")), []).append(group)
        return found or {"": list(self.groups)}

    def ranked(self, metric: str) -> list[Group]:
        """Groups that have a metric, the best mean first."""
        having = [(spread[0], group) for group in self.groups if (spread := group.spread(metric))]
        return [group for _, group in sorted(having, key=lambda pair: pair[0], reverse=NAMES[metric][1])]

    def differing(self) -> dict[str, list[Any]]:
        """Settings in which labels that have them differ: flattened key → each label's value, None for none."""
        configs = [flat(group.config) for group in self.groups]
        return {key: [config.get(key) for config in configs] for key in differing(configs) if key != "seed"}


def readable(key: str) -> str:
    """A setting as the paper calls it.

    Example:
        >>> readable("rwalk.ewc_lambda"), readable("options.strength"), readable("rwalk.terms"), readable("lr")
        ('λ', 'λ', 'terms', 'lr')
    """
    return "λ" if is_strength(key) else SIGNS.get(key, key.removeprefix("rwalk."))


def shown(value: object, most: int = 200) -> str:
    """Text of a file for readers: one line, no control characters, not endless."""
    line = "".join(sign if sign.isprintable() else "?" for sign in str(value))
    return line if len(line) <= most else line[: most - 1] + "…"
