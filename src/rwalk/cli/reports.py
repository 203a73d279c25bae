"""The command ``rwalk report``: what is stored, for people to look at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from torch import Tensor

from rwalk.cli.display import tell
from rwalk.cli.options import examples, refuse_inputs
from rwalk.core.inspection import summarize_state
from rwalk.experiments.writing import writing_whole
from rwalk.report import collect, figures_of, study_page, write_page
from rwalk.report.charts import Chart
from rwalk.report.drawing import draw
from rwalk.report.formats import FORMATS
from rwalk.report.state_page import state_charts, state_page

__all__ = ["model_weights", "reports", "state_report"]

reports = typer.Typer()
console = Console()

PICTURES = (".png", ".svg", ".pdf")


@reports.command(
    no_args_is_help=True,
    epilog=examples(
        "rwalk report runs/compared --out report.html",
        "rwalk report runs/compared --out plane.svg --figure plane",
        "rwalk report runs/compared --out table.tex",
        "rwalk report state.safetensors",
    ),
)
def report(
    places: Annotated[
        list[Path], typer.Argument(metavar="PLACE...", help="Folders of results, TABLE.json, a state file.")
    ],
    out: Annotated[Path | None, typer.Option(help="File to write; for pictures also a folder.")] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="html, md, csv, tex, png, svg or pdf, if --out does not tell.")
    ] = None,
    figure: Annotated[str | None, typer.Option(help="Which figure, for png, svg and pdf.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Of a state file: the model's weights, safetensors.")] = None,
) -> None:
    """Write a page (or tables, or pictures) of stored results: a run, a comparison, a tuning, a reproduction, a sweep.

    Of a state file: what is held, and what is left to learn with.
    """
    suffix = _suffix(out, format_)
    target = out or Path(f"report{suffix}")
    if figure is not None and suffix not in PICTURES:
        has = "all figures" if suffix == ".html" else "no figures"
        raise ValueError(f"--figure {figure}: {suffix[1:]} has {has}; give --out a name in png, svg or pdf")
    is_state = [place.is_file() and place.suffix != ".json" for place in places]
    if any(is_state):
        if len(places) > 1 or suffix not in (".html", *PICTURES):
            state = places[is_state.index(True)]
            raise ValueError(f"{state} is a state file: report it alone, as html, png, svg or pdf")
        state_report(places[0], target, suffix, figure, weights, option="--out")
        return
    if weights is not None:
        raise ValueError(f"--weights {weights}: the weights of a state file's model, and {places[0]} is none")
    refuse_inputs("--out", target, _stored(places))
    study = collect(places)
    if suffix == ".html":
        _say([write_page(study_page(study), target)])
    elif suffix in PICTURES:
        _say([draw(*drawn) for drawn in _pictures(figures_of(study), target, suffix, figure)])
    else:
        content = FORMATS[suffix](study).encode()
        with writing_whole(target) as file:
            file.write(content)
        _say([target])


def state_report(
    file: Path, target: Path, suffix: str, figure: str | None, weights: Path | None, *, option: str
) -> None:
    """A page, or pictures, of a state file; ``option`` is what named the target.

    Raises:
        ValueError: They would be written over the state file or the weights.
    """
    refuse_inputs(option, target, [file, weights])
    found = summarize_state(file, None if weights is None else model_weights(weights))
    if suffix == ".html":
        _say([write_page(state_page(found), target)])
    else:
        pictures = _pictures(state_charts(found), target, suffix, figure)
        for _, place in pictures:
            refuse_inputs(option, place, [file, weights])
        _say([draw(*drawn) for drawn in pictures])


def model_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ValueError: It is none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except SafetensorError as error:
        raise ValueError(f"--weights {file} is no safetensors file ({error}): save model.state_dict() as one") from None


def _suffix(out: Path | None, format_: str | None) -> str:
    known = [".html", *FORMATS, *PICTURES]
    named = out.suffix.lower() if out is not None and out.suffix else ".html"
    suffix = f".{format_.lower().lstrip('.')}" if format_ else named
    if suffix not in known:
        told = f"--format {format_}" if format_ else f"--out {out}"
        raise ValueError(f"{told}: expected one of {', '.join(name[1:] for name in known)}")
    if format_ and out is not None and out.suffix.lower() in known and out.suffix.lower() != suffix:
        raise ValueError(f"--format {format_} and --out {out} name two formats: give one of them")
    return suffix


def _stored(places: Sequence[Path]) -> Iterable[Path]:
    """The files in which the places hold results."""
    return (file for place in places for file in (place.rglob("*.json") if place.is_dir() else [place]))


def _pictures(charts: Sequence[Chart], target: Path, suffix: str, figure: str | None) -> list[tuple[Chart, Path]]:
    """Where each figure goes: one into a file, or all of them into a folder."""
    if not charts:
        raise ValueError("there is nothing to draw: no run has figures over several tasks")
    if figure is not None:
        chosen = [chart for chart in charts if chart.key == figure]
        if not chosen:
            raise ValueError(f"--figure {figure}: choose one of {', '.join(chart.key for chart in charts)}")
        charts = chosen
    if target.suffix.lower() != suffix:
        return [(chart, target / f"{chart.key}{suffix}") for chart in charts]
    return [(charts[0], target)]


def _say(paths: Sequence[Path]) -> None:
    for path in paths:
        tell(console, path)
