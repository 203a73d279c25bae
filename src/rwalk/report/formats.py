"""A study in the formats of papers and spreadsheets."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from html import escape

from rwalk.experiments.loading import flat
from rwalk.experiments.tidy import harmless
from rwalk.report.findings import evidence, headline
from rwalk.report.study import Study, shown
from rwalk.report.tables import Table, difference_table, settings_table, summary_table

__all__ = ["FORMATS", "as_csv", "as_markdown", "as_tex"]


def as_csv(study: Study) -> str:
    """A row for each run: label, seed, metrics (fractions), seconds, and the settings in which labels differ."""
    keys = list(study.differing())
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["label", "seed", *study.told, "seconds", *keys])
    for group in study.groups:
        config = flat(group.config)
        for run in group.runs:
            figures = [run.metrics.get(name) for name in study.told]
            settings = [harmless(config.get(key)) for key in keys]
            writer.writerow([harmless(group.label), run.seed, *figures, run.seconds, *settings])
    return out.getvalue()


def as_markdown(study: Study) -> str:
    """Finding, tables, commands."""
    parts = [f"# {_md(headline(study))}\n", *([f"{_md(evidence(study))}\n"] if evidence(study) else [])]
    for table in (summary_table(study), difference_table(study), settings_table(study)):
        if table is not None:
            parts += [f"{_md(table.caption)}\n"] if table.caption else []
            parts.append(_md_table(table))
    parts += [f"- {_md(note)}" for note in study.notes]
    failed = [(group.label, seed, error) for group in study.groups for seed, error in group.errors.items()]
    parts += [f"- failed: {_md(label)}, seed {seed}: {_md(error)}" for label, seed, error in failed]
    if study.commands:
        commands = "\n".join(command.replace("`", "'") for command in study.commands)
        parts.append(f"\n```\n{commands}\n```\n")
    versions = ", ".join(f"{name} {version}" for name, version in study.versions.items())
    return "\n".join([*parts, f"Versions: {_md(versions)}"]) + "\n" if versions else "\n".join(parts) + "\n"


def as_tex(study: Study) -> str:
    """The table of figures, for booktabs."""
    table = summary_table(study)
    head = " & ".join(_tex(cell) for cell in table.head)
    lines = [" & ".join(_tex(cell) for cell in row.cells) for row in table.rows]
    lines = [
        f"{{}}{line}" if line.startswith(("[", "*")) else line for line in lines
    ]  # else read as an option of what stands before
    bold = [" & ".join(rf"\textbf{{{_tex(cell)}}}" for cell in row.cells) if row.best else line
            for row, line in zip(table.rows, lines, strict=True)]  # fmt: skip
    body = "".join(f"{line} \\\\\n" for line in bold)
    return (
        f"% {shown(table.caption, 400)}\n\\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}\n\\toprule\n{head} \\\\\n"
        f"\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"
    )


#: What a suffix writes.
FORMATS: dict[str, Callable[[Study], str]] = {".csv": as_csv, ".md": as_markdown, ".tex": as_tex}


def _md_table(table: Table) -> str:
    lines = [table.head, ["---", *(["---"] if table.words else ["---:"]) * (len(table.head) - 1)]]
    return (
        "\n".join(f"| {' | '.join(_md(cell) for cell in line)} |" for line in [*lines, *(r.cells for r in table.rows)])
        + "\n"
    )


def _md(text: object) -> str:
    """Text as Markdown shows it: no part of it HTML, a cell's end, a link or emphasis."""
    line = escape(shown(text, 2000), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", line)


TEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "λ": r"$\lambda$",
    "α": r"$\alpha$", "Δ": r"$\Delta$", "…": r"\ldots{}", "<": r"$<$", ">": r"$>$",
}  # fmt: skip


def _tex(text: object) -> str:
    return "".join(TEX.get(sign, sign) for sign in shown(text))
