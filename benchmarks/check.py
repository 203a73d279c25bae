"""Whether the results hold what `thresholds.toml` asks for."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import RESULTS
from benchmarks.table import text_table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["THRESHOLDS", "Limit", "judge", "load_limits", "load_reports", "main"]

THRESHOLDS = Path(__file__).with_name("thresholds.toml")


@dataclass(frozen=True)
class Limit:
    """What a ratio of a benchmark may be."""

    benchmark: str
    ratio: str
    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        """The interval, in words."""
        if self.low == self.high:
            return f"= {self.low:g}"
        bounds = [(self.low, f"≥ {self.low:g}"), (self.high, f"≤ {self.high:g}")]
        return ", ".join(text for bound, text in bounds if math.isfinite(bound))


def load_limits(path: Path = THRESHOLDS) -> list[Limit]:
    """Read the thresholds.

    Raises:
        ValueError: A threshold is neither ``max`` nor ``min``.
    """
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return [limit for benchmark, table in tables.items() for limit in _limits(benchmark, table)]


def _limits(benchmark: str, table: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[Limit]:
    bounds = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    if unknown := set(bounds) - {"min", "max"}:
        raise ValueError(f"{'.'.join((benchmark, *prefix))} has {sorted(unknown)[0]!r}: expected max or min")
    if bounds:
        yield Limit(benchmark, ".".join(prefix), bounds.get("min", -math.inf), bounds.get("max", math.inf))
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _limits(benchmark, value, (*prefix, key))


def load_reports(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """All reports in a folder, by benchmark."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return {report["benchmark"]: report for report in reports if "benchmark" in report}  # others are of other commands


def judge(limit: Limit, reports: Mapping[str, Mapping[str, Any]]) -> tuple[float | None, str]:
    """The ratio found, and ``pass``, ``fail``, or why there is none (which is a failure too)."""
    report = reports.get(limit.benchmark)
    if report is None:
        return None, "no result"
    if limit.ratio not in report["ratios"]:
        return None, "not in the result"
    value = report["ratios"][limit.ratio]
    if report["settings"].get("quick"):
        return value, "a --quick trial"
    return value, "pass" if limit.low <= value <= limit.high else "fail"


def main(arguments: list[str] | None = None) -> int:
    """Print each ratio with its limit; 1 if one fails or is missing, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where the reports are")
    parser.add_argument("--thresholds", type=Path, default=THRESHOLDS, metavar="FILE", help="what they must show")
    options = parser.parse_args(arguments)
    reports, rows = load_reports(options.results), []
    for limit in load_limits(options.thresholds):
        value, verdict = judge(limit, reports)
        row = {"benchmark": limit.benchmark, "ratio": limit.ratio, "found": value, "limit": str(limit)}
        rows.append({**row, "verdict": verdict})
    print(text_table(rows))
    failed = sum(row["verdict"] != "pass" for row in rows)
    print(f"\n{len(rows) - failed} of {len(rows)} pass")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
