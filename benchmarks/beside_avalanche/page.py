"""A stored comparison as a section for the documentation: ``python -m benchmarks.beside_avalanche.page FILE``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.table import markdown_table

__all__ = ["cells", "section"]

#: Title, factor and decimals of each figure.
COLUMNS = {
    "average_accuracy": ("A %", 100, 1),
    "forgetting": ("F", 1, 3),
    "intransigence": ("I", 1, 3),
    "learning_accuracy": ("learning accuracy %", 100, 1),
}
COMPARED = ("average_accuracy", "forgetting", "intransigence")
SHOWN = ("benchmark", "model", "hidden", "heads", "exemplars", "epochs", "batch_size", "optimizer", "lr")


def section(report: Mapping[str, Any]) -> str:
    """A stored comparison in Markdown.

    Args:
        report: What ``python -m benchmarks.beside_avalanche --json FILE`` wrote.
    """
    versions, settings = report["versions"], report["settings"]
    known = ", ".join(f"{name} {versions[name]}" for name in ("torch", "rwalk") if versions[name])
    told = "".join(f" --set {change}" for change in settings["changes"])
    quick = " --quick" if settings["quick"] else ""
    reused = sum(study["reused"] for study in report["studies"])
    before = f" ({reused} runs were finished before)" if reused else ""
    lines = [
        "## Beside Avalanche\n",
        f"`python -m benchmarks.beside_avalanche{quick}{told}`: rwalk, and Avalanche {versions['avalanche-lib']} with "
        f"its own `RWalkPlugin` and `ReplayPlugin`, on one protocol; {_seeds(settings['seeds'])}, "
        f"{settings['seconds'] / 60:.1f} minutes{before}, {report['date'][:10]}, {known}. For each row λ was chosen on "
        f"{settings['held_out']:.0%} of the training data, held out, with {_seeds(settings['tuning_seeds'])}, from "
        f"{', '.join(f'{value:g}' for value in settings['grid'])}.\n",
    ]
    for study in report["studies"]:
        lines += [f"### {study['protocol']}\n", f"{study['run']} of `{study['table']}`{_followed(study)}.\n"]
        rows = [{"": row["label"], **cells(study, row)} for row in study["rows"]]
        lines += [markdown_table(rows) if rows else "No run finished.", ""]
    lines += [
        "Mean ± sample standard deviation over seeds; less Avalanche: mean of the differences seed by seed, with its "
        "95 % confidence interval.\n",
        *(f"- {note}" for note in report["notes"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def cells(study: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """What a table says of one row of a study: λ, figures, and differences from Avalanche."""
    found: dict[str, Any] = {"λ": f"{study['chosen'][row['label']]:g}"}
    for name, (title, scale, digits) in COLUMNS.items():
        found[title] = _spread(row, name, scale, digits)
    for name in COMPARED:
        title, scale, digits = COLUMNS[name]
        found[f"{title} less Avalanche"] = _difference(row["differences"].get(name), scale, digits)
    return found


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count > 1 else ''}"


def _followed(study: Mapping[str, Any]) -> str:
    """The settings that all rows share."""
    configs = [row["config"] for row in study["rows"] if row["config"] is not None]
    if not configs:
        return ""
    shown = {name: configs[0][name] for name in SHOWN}
    return ": " + ", ".join(f"{name} {value}" for name, value in shown.items() if value)


def _spread(row: Mapping[str, Any], name: str, scale: int, digits: int) -> str | None:
    mean, deviation = row["mean"][name], row["deviation"][name]
    if mean is None:
        return None
    spread = f" ± {scale * deviation:.{digits}f}" if len(row["seeds"]) > 1 else ""
    return f"{scale * mean:.{digits}f}{spread}"


def _difference(found: Mapping[str, Any] | None, scale: int, digits: int) -> str | None:
    if found is None:
        return None
    mean, low, high = (None if found[name] is None else scale * found[name] for name in ("mean", "low", "high"))
    return f"{mean:+.{digits}f}" if low is None else f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def main() -> int:
    """Print the section of a stored result; 2 if none is named."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        print("expected the file that `python -m benchmarks.beside_avalanche --json FILE` wrote", file=sys.stderr)
        return 2
    print(section(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
