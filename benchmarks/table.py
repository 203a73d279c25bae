"""Rows of figures as text and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["markdown_table", "text_table"]


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Columns lined up, for a terminal.

    Example:
        >>> print(text_table([{"model": "mlp", "ms": 1.23456}, {"model": "resnet", "ms": None}]))
        model      ms
        mlp     1.235
        resnet      –
    """
    cells = _cells(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    numeric = _numeric(rows)
    lines = []
    for line in cells:
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table for a page.

    Example:
        >>> print(markdown_table([{"model": "mlp", "ms": 12.0}]))
        | model | ms |
        |---|---:|
        | mlp | 12 |
    """
    header, *body = [f"| {' | '.join(line)} |" for line in _cells(rows)]
    rule = "|" + "|".join("---:" if right else "---" for right in _numeric(rows)) + "|"
    return "\n".join([header, rule, *body])


def _columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _numeric(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    return [any(isinstance(row.get(key), int | float) for row in rows) for key in _columns(rows)]


def _cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    columns = _columns(rows)
    return [columns, *([_format(row.get(key)) for key in columns] for row in rows)]


def _format(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
