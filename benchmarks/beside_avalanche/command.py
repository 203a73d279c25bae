"""The command: both protocols, one table."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.beside_avalanche.page import cells
from benchmarks.beside_avalanche.protocols import PROTOCOLS
from benchmarks.beside_avalanche.study import Plan, Study, study
from benchmarks.command import Result, run
from benchmarks.peers import why_not
from rwalk.cli.options import settings
from rwalk.errors import RWalkError
from rwalk.experiments.reproduce import load_table
from rwalk.experiments.tune import VALIDATION

__all__ = ["BesideAvalanche", "main", "measure"]

GRID, QUICK_GRID = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0), (1.0, 10.0)
TUNING_SEEDS = 2

OPTIONS: dict[str, dict[str, Any]] = {
    "--protocol": {"choices": [protocol.name for protocol in PROTOCOLS], "help": "only this one"},
    "--seeds": {"type": int, "metavar": "N", "help": "how many seeds; the tables' own number without it"},
    "--tuning-seeds": {"type": int, "metavar": "N", "help": f"how many seeds λ is chosen by ({TUNING_SEEDS})"},
    "--grid": {"type": float, "nargs": "+", "metavar": "LAMBDA", "help": "values of λ that either may choose from"},
    "--jobs": {"type": int, "default": 2, "metavar": "N", "help": "processes (2)"},
    "--runs": {"type": Path, "metavar": "FOLDER", "help": "keep finished runs there, and find them again"},
    "--set": {
        "action": "append",
        "default": [],
        "dest": "changes",
        "metavar": "KEY=VALUE",
        "help": "changes both protocols, such as benchmark=split-digits; may be repeated",
    },
}


@dataclass
class BesideAvalanche(Result):
    """A result that holds all figures behind its table.

    Attributes:
        studies: A ``Study`` a protocol, as plain values.
    """

    studies: list[dict[str, Any]] = field(default_factory=list)


def measure(
    quick: bool,
    *,
    protocol: str | None = None,
    seeds: int | None = None,
    tuning_seeds: int | None = None,
    grid: Sequence[float] | None = None,
    jobs: int = 2,
    runs: Path | None = None,
    changes: Sequence[str] = (),
) -> BesideAvalanche:
    """Run the paper's split-MNIST protocols with rwalk and with Avalanche's own RWalkPlugin and ReplayPlugin.

    Args:
        quick: One seed and two values of λ, where not said otherwise.
        protocol: Name of the only one to run; all if None.
        seeds: How many seeds the test data sees.
        tuning_seeds: How many seeds λ is chosen by.
        grid: Values of λ.
        jobs: Processes.
        runs: Where finished runs are kept and found again.
        changes: ``KEY=VALUE`` entries that change the protocols.

    Raises:
        RWalkError: Avalanche is not installed here.
        ValueError: The options make no study.
        DataUnavailableError: The data is not to be had.
    """
    reason = why_not("avalanche")
    if reason is not None:
        raise RWalkError(f"{reason}; run this in the environment of `make peers`")
    wanted = [each for each in PROTOCOLS if protocol in (None, each.name)]
    specs = {each: each.spec(settings(changes), quick=quick) for each in wanted}
    count = load_table(PROTOCOLS[0].table, quick=quick, seeds=seeds).seeds
    plan = Plan(
        grid=tuple(sorted(set(grid or (QUICK_GRID if quick else GRID)))),
        seeds=count,
        tuning_seeds=tuple(range(tuning_seeds or (1 if quick else TUNING_SEEDS))),
        jobs=jobs,
        folder=runs,
    )
    result = BesideAvalanche({"grid": list(plan.grid), "held_out": VALIDATION, **_counts(plan), "changes": changes})
    for each, spec in specs.items():
        _add(result, study(each, spec, plan), plan)
    result.note("λ of each row: the best average accuracy on the held-out share of the training data, from the grid")
    result.note("equal seeds give equal first weights and held-out data; each framework draws batches in its own way")
    result.note("both are judged in one way: over the classes seen so far, or over those of a sample's task")
    result.note("heads of all tasks are there from the first on: Avalanche's RWalkPlugin stops at one that comes later")
    return result


def _counts(plan: Plan) -> dict[str, int]:
    return {"seeds": len(plan.seeds), "tuning_seeds": len(plan.tuning_seeds), "jobs": plan.jobs}


def _add(result: BesideAvalanche, found: Study, plan: Plan) -> None:
    stored = found.to_dict()
    result.studies.append(stored)
    name = found.protocol.name
    for row in stored["rows"]:
        result.rows.append({"protocol": name, "": row["label"], **cells(stored, row)})
        gained = row["differences"].get("average_accuracy")
        if gained is not None:
            result.ratios[f"{name}.{row['label']}.accuracy_gained"] = gained["mean"]
        for seed, error in row["errors"].items():
            result.note(f"{name}, {row['label']}, seed {seed} failed: {error}")
    for difference in found.differs:
        result.note(f"{name}: {difference}")
    for label, value in found.chosen.items():
        _tell_of_the_choice(result, f"{name}, {label}", value, found.tuning[label], plan)


def _tell_of_the_choice(result: Result, who: str, value: float | None, tuning: Mapping[float, Any], plan: Plan) -> None:
    if value is None:
        reasons = [error for row in tuning.values() for error in row.errors.values()]
        result.note(f"{who}: no λ finished on held-out data: {reasons[0]}")
    elif value in (plan.grid[0], plan.grid[-1]) and len(plan.grid) > 1:
        result.note(f"{who}: the best λ, {value:g}, is at the end of the grid")


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out the command line; what is wrong with it is told in one line."""
    try:
        run("beside_avalanche", measure, arguments, options=OPTIONS)
    except (ValueError, RWalkError) as error:
        sys.exit(f"error: {error}")
