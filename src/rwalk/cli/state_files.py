"""The commands that look into state files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rwalk.cli.display import show
from rwalk.cli.options import AsJson, examples
from rwalk.cli.reports import model_weights, state_report
from rwalk.core.inspection import compare_states, summarize_state

__all__ = ["state_files"]

state_files = typer.Typer()
console = Console()

#: Whose norms the table shows; ``--json`` has all.
KINDS = ("importance", "fisher", "score", "anchor")
#: Seconds in a unit, the largest first.
UNITS = (("days", 86400), ("hours", 3600), ("minutes", 60), ("seconds", 1))


@state_files.command(
    epilog=examples("rwalk inspect state.safetensors", "rwalk inspect state.safetensors --html state.html")
)
def inspect(
    file: Annotated[Path, typer.Argument(help="What RWalk.save wrote.")],
    as_json: AsJson = False,
    html: Annotated[Path | None, typer.Option(help="Write a page instead.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="The model's weights, safetensors: how far they are from the anchors.")
    ] = None,
) -> None:
    """Say what is in a state file: tasks, steps, settings, what each layer is worth, and what is left to learn with."""
    if html is not None:
        state_report(file, html, ".html", None, weights, option="--html")
        return
    found = summarize_state(file, None if weights is None else model_weights(weights))
    if as_json:
        _print_json(found)
        return
    kind = f"schema {found['schema']}{', compact' if found['compact'] else ''}"
    _print(f"{found['path']}: {kind}, {'every byte verified' if found['verified'] else 'which has no checksums'}")
    unit, seconds = next((unit for unit in UNITS if found["age"] >= unit[1]), UNITS[-1])
    _print(f"{_size(found['bytes'])}, {found['elements']} parameters, written {found['age'] // seconds} {unit} ago")
    _print(
        f"{found['tasks']} tasks, {found['steps']} steps, {found['task_steps']} of them in this task, "
        f"{found['window_steps']} in this window"
    )
    _print("config: " + ", ".join(f"{name}={value!r}" for name, value in found["config"].items()))
    _show_layers(found)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("parameter", overflow="fold")
    for title in ("shape", "share", *(f"‖{kind}‖" for kind in KINDS)):
        table.add_column(title, justify="right", overflow="fold")
    for name, entry in found["parameters"].items():
        norms = [f"{entry['norms'][kind]:.3g}" if kind in entry["norms"] else "–" for kind in KINDS]
        table.add_row(_name(name), "×".join(map(str, entry["shape"])) or "1", _share(entry["share"]), *norms)
    show(console, table)


def _show_layers(found: dict[str, Any]) -> None:
    layers = Table(box=None, pad_edge=False, header_style="bold")
    layers.add_column("layer", overflow="fold")
    for title in ("weights", "importance", "held", "free", "saturated", "moved"):
        layers.add_column(title, justify="right")
    for name, row in found["held_layers"].items():
        shares = [_share(row[key]) for key in ("share", "held", "free", "saturated", "drift")]
        layers.add_row(_name(name) if name else "all", str(row["weights"]), *shares, style=None if name else "bold")
    show(console, layers)
    _print(
        "held: weights with at least a tenth of the largest importance; free: with less than a hundredth\n"
        "saturated: of the importance, what sits on weights with at least nine tenths of the largest\n"
        "moved: distance from the anchor over its norm"
    )
    for warning in found["warnings"]:
        _print(f"warning: {warning}")


@state_files.command(epilog=examples("rwalk diff before.safetensors after.safetensors"))
def diff(
    one: Annotated[Path, typer.Argument(help="A state file.")],
    other: Annotated[Path, typer.Argument(help="Another.")],
    as_json: AsJson = False,
) -> None:
    """Say in what two state files differ. The exit status is 1 if they do."""
    found = compare_states(one, other)
    if as_json:
        _print_json(found)
    elif found["same"]:
        _print("the same state")
    else:
        _show_differences(found)
    if not found["same"]:
        raise typer.Exit(1)


def _show_differences(found: dict[str, Any]) -> None:
    for name, (before, after) in {**found["counters"], **found["config"]}.items():
        _print(f"{name}: {before!r} → {after!r}")
    for where, names in (("first", found["only_in_first"]), ("second", found["only_in_second"])):
        for name in names:
            console.print(f"only in the {where}: {_name(name)}", highlight=False, soft_wrap=True)
    if found["parameters"]:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("parameter", "quantity", "distance", "relative"):
            table.add_column(title, justify="left" if title in ("parameter", "quantity") else "right")
        for name, quantities in found["parameters"].items():
            for quantity, how in quantities.items():
                table.add_row(_name(name), quantity, *_cells(how))
        show(console, table)


def _cells(how: dict[str, Any]) -> tuple[str, str]:
    if "values" in how:
        before, after = how["values"]
        return escape(f"{before} → {after}"), ""
    return f"{how['distance']:.3g}", "–" if how["relative"] is None else f"{how['relative']:.2%}"


def _print(text: str) -> None:
    console.print(escape(_visible(text)), highlight=False, soft_wrap=True)


def _print_json(found: dict[str, Any]) -> None:
    typer.echo(json.dumps(found, indent=1))


def _share(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _name(name: str) -> str:
    """A name from a file: no markup, no control characters, no longer than a line."""
    return escape(_visible(name if len(name) <= 100 else f"{name[:80]}…{name[-15:]}"))


def _visible(text: str) -> str:
    return "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text)


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
