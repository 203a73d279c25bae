"""One protocol: λ chosen for each contender on held-out data, then all of them on the test data, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.beside_avalanche.protocols import AVALANCHE, Contender, Protocol, contenders
from benchmarks.beside_avalanche.remembered import differences
from benchmarks.beside_avalanche.runs import carry_out
from rwalk.experiments import RunSpec, last_reference, summarise
from rwalk.experiments.data import stream_of
from rwalk.experiments.summary import Row
from rwalk.experiments.tune import VALIDATION, best

__all__ = ["Plan", "Study", "choose", "study", "with_lambda"]


@dataclass(frozen=True)
class Plan:
    """How thoroughly.

    Attributes:
        grid: Values of λ that every contender may choose from.
        seeds: Of the runs that are reported.
        tuning_seeds: Of the runs that λ is chosen by.
        jobs: Processes.
        folder: Where finished runs are kept and found again; None keeps nothing.
    """

    grid: tuple[float, ...]
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    jobs: int = 2
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what no study can be made of.

        Raises:
            ValueError: No λ or one below 0, or no seeds.
        """
        if not self.grid or min(self.grid) < 0:
            raise ValueError(f"grid={list(self.grid)!r}: expected values of λ, at least 0")
        if not self.seeds or not self.tuning_seeds:
            raise ValueError(f"seeds={self.seeds!r}, tuning_seeds={self.tuning_seeds!r}: expected at least one of each")


@dataclass
class Study:
    """What came of a protocol.

    Attributes:
        protocol: The protocol.
        chosen: λ by label; None where no run on held-out data finished.
        tuning: By label, a row for each λ, judged on held-out data.
        rows: A row for each label, judged on test data, and its difference from Avalanche.
        differs: What Avalanche's replay does otherwise.
        reused: How many of the runs were finished before.
    """

    protocol: Protocol
    chosen: dict[str, float | None] = field(default_factory=dict)
    tuning: dict[str, dict[float, Row]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    reused: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "protocol": self.protocol.name,
            "table": self.protocol.table,
            "run": self.protocol.run,
            "chosen": self.chosen,
            "tuning": {
                label: [{"ewc_lambda": value, **row.to_dict()} for value, row in rows.items()]
                for label, rows in self.tuning.items()
            },
            "rows": [row.to_dict() for row in self.rows],
            "differs": self.differs,
            "reused": self.reused,
        }


def study(protocol: Protocol, spec: RunSpec, plan: Plan) -> Study:
    """Choose λ for each contender, and compare them.

    Raises:
        DataUnavailableError: The benchmark's data is not to be had.
    """
    data = stream_of(spec)
    found = Study(protocol, differs=differences(spec, data))
    sides = contenders(spec, data)
    candidates = {side.label: {value: with_lambda(side, value, VALIDATION) for value in plan.grid} for side in sides}
    work = [one for own in candidates.values() for one in own.values()]
    outcomes = carry_out(work, plan.tuning_seeds, jobs=plan.jobs, folder=plan.folder)
    found.reused += sum(outcome.reused for outcome in outcomes)
    finalists = []
    for side in sides:
        own = candidates[side.label]
        rows = summarise(outcomes, [one.label for one in own.values()])
        found.tuning[side.label] = dict(zip(own, rows, strict=True))
        found.chosen[side.label] = value = choose(found.tuning[side.label])
        if value is not None:
            finalists.append(replace(with_lambda(side, value), label=side.label))
    if finalists:
        labels = [side.label for side in finalists]
        reference = last_reference(spec)
        outcomes = carry_out(finalists, plan.seeds, jobs=plan.jobs, folder=plan.folder, reference=reference)
        found.reused += sum(outcome.reused for outcome in outcomes)
        found.rows = summarise(outcomes, labels, AVALANCHE if AVALANCHE in labels else labels[-1])
    return found


def with_lambda(side: Contender, value: float, validation: float = 0.0) -> Contender:
    """The same with a strength of the penalty, judged on held-out training data if ``validation`` is above 0."""
    rwalk = {**side.spec.rwalk, "ewc_lambda": value}
    spec = side.spec.model_copy(update={"rwalk": rwalk, "validation": validation})
    return replace(side, label=f"{side.label}, λ={value:g}", spec=spec)


def choose(rows: Mapping[float, Row]) -> float | None:
    """The λ of the highest average accuracy; None if none finished with every seed."""
    try:
        winner = best(list(rows.values()))
    except ValueError:
        return None
    return next(value for value, row in rows.items() if row is winner)
