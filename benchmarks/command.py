"""What every benchmark's command does: measure, print, and write a file if asked to."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
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


def run(
    name: str,
    measure: Callable[..., Result],
    arguments: Sequence[str] | None = None,
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Carry out a benchmark's command line.

    Args:
        name: The benchmark.
        measure: Does the work; told whether few repeats are enough, and its own options by name.
        arguments: The command line; the process's own if None.
        options: What this benchmark can be told besides: for each flag, the arguments of ``add_argument``.

    Returns:
        The report: ``benchmark``, ``description``, ``machine``, ``versions``, ``date``, and the parts of ``Result``.
    """
    description = (measure.__doc__ or "").strip().splitlines()[0]
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report to this file")
    parser.add_argument("--quick", action="store_true", help="few repeats and small models: a trial, not a result")
    for flag, how in (options or {}).items():
        parser.add_argument(flag, **how)
    chosen = vars(parser.parse_args(arguments))
    target, quick = chosen.pop("json"), chosen.pop("quick")
    began = time.perf_counter()
    result = measure(quick, **chosen)
    result.settings |= {"quick": quick, "seconds": round(time.perf_counter() - began, 1)}
    report = {
        "benchmark": name,
        "description": description,
        "machine": describe_machine(),
        "versions": describe_versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **asdict(result),
    }
    show(report)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
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
