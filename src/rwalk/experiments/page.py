"""Stored reproductions as a page of the documentation."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from rwalk.experiments.reproduce import command_of

__all__ = ["how_many_seeds", "reproduction_page"]

COLUMNS = {"average_accuracy": "A %", "forgetting": "F", "intransigence": "I"}


def reproduction_page(folder: str | Path, page: str | Path = "page.md") -> str:
    """All stored reproductions of a folder, in Markdown.

    Args:
        folder: Holds ``TABLE.json`` files of ``rwalk reproduce``, and pictures of their planes beside them.
        page: Where the page will be, for links to the pictures.

    Raises:
        FileNotFoundError: It holds none.
        ValueError: A JSON file there is something else.
    """
    found = sorted(Path(folder).glob("*.json"))
    if not found:
        raise FileNotFoundError(f"no stored reproduction in {folder}: run `rwalk reproduce TABLE --out {folder}`")
    parts = [
        "# Reproduced tables\n",
        "Written by `rwalk reproduce --page` from the results in the repository; `rwalk reproduce TABLE` runs one "
        "anew. A: average accuracy after the last experience, F: forgetting, I: intransigence against a jointly "
        "trained model; mean ± sample standard deviation over seeds.\n",
    ]
    for path in found:
        picture = path.with_suffix(".svg")
        link = os.path.relpath(picture, Path(page).parent) if picture.is_file() else None
        try:
            parts += _table(_stored(path), link)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"{path} is no stored reproduction ({type(error).__name__}): keep it elsewhere") from None
    return "\n".join(parts).rstrip() + "\n"


def how_many_seeds(stored: Mapping[str, Any]) -> str:
    """Seeds of a stored reproduction: ``5 seeds``, or ``1 to 5 seeds`` where rows were run with different numbers."""
    counts = sorted({len(row["seeds"]) + len(row["errors"]) for row in stored["rows"]})
    if len(counts) > 1:
        return f"{counts[0]} to {counts[-1]} seeds"
    asked = len(stored["seeds"])
    return f"{asked} seed{'' if asked == 1 else 's'}"


def _stored(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {str(error)[:200]}") from None
    if not isinstance(stored, dict) or not {"table", "rows", "versions"} <= set(stored):
        raise ValueError(f"{path} is no stored reproduction: keep other files elsewhere")
    return stored


def _table(stored: Mapping[str, Any], picture: str | None) -> list[str]:
    known = ", ".join(f"{name} {version}" for name, version in stored["versions"].items() if name in ("torch", "rwalk"))
    seeds = len(stored["seeds"])
    minutes = f"{stored['wall_seconds'] / 60:.1f} minutes"
    runs = sum(len(row["seeds"]) + len(row["errors"]) for row in stored["rows"])
    reused = f" ({stored['reused']} of {runs} runs were finished before)" if stored["reused"] else ""
    labels = [str(row["label"]) for row in stored["rows"]]
    words = command_of(str(stored["table"]), labels, stored["seeds"], quick=bool(stored["quick"]))
    lines = [
        f"## {_safe(stored['title'])}\n",
        f"`{_code(shlex.join(words))}`: "
        f"{_safe(stored['source'])}; "
        f"{how_many_seeds(stored)}, {minutes}{reused}, {_safe(stored['date'])}, {_safe(known)}.\n",
    ]
    metrics = [name for name in COLUMNS if any(row["mean"][name] is not None for row in stored["rows"])]
    head = ["", *(f"{COLUMNS[name]} {kind}" for name in metrics for kind in ("published", "here", "difference")), "s"]
    lines += [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    failed = []
    for row in stored["rows"]:
        finished = len(row["seeds"])
        cells = [_safe(row["label"]) + (f" ({finished} of {seeds} seeds)" if finished < seeds else "")]
        for name in metrics:
            cells += _cells(row, name)
        seconds = [figures["seconds"] for figures in row["seeds"].values()]
        lines.append(_line([*cells, f"{sum(seconds) / len(seconds):.0f}" if seconds else "–"]))
        failed += [_safe(f"- failed: {row['label']}, seed {seed}: {error}") for seed, error in row["errors"].items()]
    lines.append("\ns: seconds of a run.\n")
    lines += [*failed, *(_safe(f"- {note}") for note in stored["protocol"])]
    if picture is not None:
        lines.append(f"\n![forgetting and intransigence]({picture})")
    return [*lines, ""]


def _cells(row: Mapping[str, Any], name: str) -> list[str]:
    scale, digits = (100, 1) if name == "average_accuracy" else (1, 3)
    published, mean = row["published"].get(name), row["mean"][name]
    if published is None:
        known = difference = "–"
    else:
        spread = "" if published["deviation"] is None else f" ± {scale * published['deviation']:.{digits}f}"
        known = f"{scale * published['value']:.{digits}f}{spread}"
        difference = "–" if published["difference"] is None else f"{scale * published['difference']:+.{digits}f}"
    ours = "–" if mean is None else f"{scale * mean:.{digits}f}{_deviation(row, name, scale, digits)}"
    return [known, ours, difference]


def _deviation(row: Mapping[str, Any], name: str, scale: int, digits: int) -> str:
    """Nothing for a single seed."""
    return f" ± {scale * row['deviation'][name]:.{digits}f}" if len(row["seeds"]) > 1 else ""


def _code(text: object) -> str:
    return _safe(text).replace("`", "'")


def _safe(text: object) -> str:
    """Text of a file as Markdown shows it: in one line, no part of it HTML, a cell's end or a link."""
    line = " ".join("".join(sign if sign.isprintable() or sign.isspace() else "?" for sign in str(text)).split())
    return escape(line, quote=False).replace("|", "\\|").replace("](", "]\\(")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
