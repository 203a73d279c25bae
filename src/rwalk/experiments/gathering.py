"""What is already there of many runs: nothing is trained, nothing written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rwalk.experiments.pool import Outcome, Work, run_name
from rwalk.experiments.spec import RunSpec

__all__ = ["gathered"]


def gathered(
    specs: Mapping[str, RunSpec], seeds: Sequence[int], folder: Path, *, intransigence: bool = False
) -> list[Outcome]:
    """Outcomes of those runs that are finished in a folder where ``run_all`` keeps them.

    Args:
        specs: Specs by label; their own seed is replaced.
        seeds: Seeds to look for.
        folder: Where the runs are. A result that is broken counts as not finished.
        intransigence: Whether the runs to look for were judged against a joint reference.
    """
    found = []
    for label, spec in specs.items():
        for seed in seeds:
            seeded = spec.model_copy(update={"seed": seed})
            outcome = Work(label, seeded, folder / run_name(seeded, intransigence), intransigence).found()
            if outcome is not None:
                found.append(outcome)
    return found
