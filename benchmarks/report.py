"""The page about performance, written from the results."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.check import judge, load_limits, load_reports
from benchmarks.plots import PLOTS
from benchmarks.table import markdown_table

__all__ = ["ORDER", "overhead_rows", "page"]

ORDER = ("step_overhead", "roofline", "memory", "loop_overhead", "end_to_end", "scaling", "lora")
DOCS = Path(__file__).parents[1] / "docs"
INTRODUCTION = """# Performance

What rwalk costs, beside its peers. `make bench` measures this anew and writes this page (the run beside Avalanche is
`make beside-avalanche`, state files are `python -m benchmarks.state_files`, GPUs `make gpu-check`); `make bench-check`
compares the results with `benchmarks/thresholds.toml`. Variants take turns, round after round in one process; figures
are medians over rounds, and ratios are formed within a round. Only ratios can be compared between machines.
"""


def page(reports: Mapping[str, Mapping[str, Any]], images: Mapping[str, Sequence[str]]) -> str:
    """The page as Markdown.

    Args:
        reports: By benchmark; those that are missing are left out and named.
        images: Paths of each benchmark's plots, relative to the page.
    """
    parts = [INTRODUCTION, _goals(reports)]
    for name in dict.fromkeys((*ORDER, *sorted(reports))):
        if name in reports:
            parts.append(_section(reports[name], images.get(name, ())))
        else:
            parts.append(f"## {name}\n\nNot measured.\n")
    return "\n".join(parts)


def overhead_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of ``step_overhead`` with one line for each case and optimizer: what each variant adds, in ms."""
    table: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        start = {key: row[key] for key in ("case", "parameters", "batch", "optimizer")}
        line = table.setdefault((row["case"], row["optimizer"]), start)
        if row["variant"] == "bare":
            line.setdefault("bare step", row["step_ms"])
        elif "added_ms" in row:
            line[f"+ {row['variant']}"] = row["added_ms"]
        if row["variant"] == "auto":
            line["auto takes"] = row["backend"]
    return list(table.values())


def _goals(reports: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for limit in load_limits():
        value, verdict = judge(limit, reports)
        row = {"benchmark": limit.benchmark, "ratio": limit.ratio, "found": value, "limit": str(limit)}
        rows.append({**row, "verdict": verdict})
    return f"## Goals\n\n{markdown_table(rows)}\n"


def _section(report: Mapping[str, Any], images: Sequence[str]) -> str:
    name = report["benchmark"]
    rows = overhead_rows(report["rows"]) if name == "step_overhead" else report["rows"]
    facts = "\n".join(f"- {part}: {_listed(report[part])}" for part in ("machine", "versions", "settings"))
    lines = [f"## {name}", "", report["description"], "", f"Measured {report['date'][:10]}.", "", facts, ""]
    lines += [line for image in images for line in (f"![{Path(image).stem}]({image})", "")]
    lines += [markdown_table(rows), "", *(f"- {note}" for note in report["notes"]), ""]
    return "\n".join(lines)


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items())


def main() -> int:
    """Write ``docs/performance.md`` and its images; 1 if there are no results."""
    reports = load_reports()
    if not reports:
        print("no results: run the benchmarks first, `make bench`", file=sys.stderr)
        return 1
    images: dict[str, list[str]] = {}
    for name, draw in PLOTS.items():
        benchmark = name.split("-")[0]
        if benchmark in reports:
            target = DOCS / "images" / f"{name}.svg"
            target.parent.mkdir(parents=True, exist_ok=True)
            draw(reports[benchmark], target)
            images.setdefault(benchmark, []).append(f"images/{target.name}")
    (DOCS / "performance.md").write_text(page(reports, images), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
