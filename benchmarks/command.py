"""What every benchmark's command does: measure, print, and write a file if asked to."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine, describe_versions
from benchmarks.table import text_table

__all__ = ["RESULTS", "Result", "progress", "run", "show"]

RESULTS = Path(__file__).parent / "results"


@dataclass
class Result:
    """What a benchmark found.

    Attributes:
        settings: What it was run with.
        rows: The figures, one dictionary a line of the table.
        ratios: What can be compared between machines, by dotted name.
        notes: What was left out and why, and what a reader has to know.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self.notes:
            self.notes.append(text)


def run(name: str, measure: Callable[[bool], Result], arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Carry out a benchmark's command line.

    Args:
        name: The benchmark.
        measure: Does the work; told whether few repeats are enough.
        arguments: The command line; the process's own if None.

    Returns:
        The report: ``benchmark``, ``description``, ``machine``, ``versions``, ``date``, and the parts of ``Result``.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=measure.__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to this file")
    parser.add_argument("--quick", action="store_true", help="few repeats and small models: a trial, not a result")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    result = measure(options.quick)
    result.settings |= {"quick": options.quick, "seconds": round(time.perf_counter() - began, 1)}
    report = {
        "benchmark": name,
        "description": measure.__doc__,
        "machine": describe_machine(),
        "versions": describe_versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **asdict(result),
    }
    show(report)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def progress(text: str) -> None:
    """Say what is being measured, beside the output."""
    print(f"… {text}", file=sys.stderr, flush=True)


def show(report: dict[str, Any]) -> None:
    """Print a report."""
    print(f"# {report['benchmark']}, {report['date']}")
    for part in ("machine", "versions", "settings"):
        print(f"{part}: " + ", ".join(f"{key} {value}" for key, value in report[part].items()))
    print("\n" + text_table(report["rows"]) + "\n")
    for name, value in report["ratios"].items():
        print(f"{name} = {value:.4g}")
    for note in report["notes"]:
        print(f"note: {note}")
