"""The commands that carry out many runs: compare, tune, reproduce."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from rwalk.cli import display
from rwalk.cli import options as options_
from rwalk.cli import tables as tables_
from rwalk.experiments import Comparison, Outcome, RunSpec, load_comparison, run_all, summarise
from rwalk.experiments.comparison import build_comparison
from rwalk.experiments.page import reproduction_page
from rwalk.experiments.plane import draw_plane
from rwalk.experiments.reproduce import load_table, report, tables
from rwalk.experiments.store import write_json
from rwalk.experiments.summary import Row
from rwalk.experiments.tune import best, candidates

__all__ = ["studies"]

studies = typer.Typer()
console = Console()

Jobs = Annotated[int, typer.Option(help="Processes; -1 for one per core.")]
Out = Annotated[Path, typer.Option(help="Folder for results; runs found finished there are not run again.")]


@studies.command()
def compare(
    out: Out,
    spec: Annotated[Path | None, typer.Option(help="YAML file with base, runs, seeds, against.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="What to learn; see `rwalk list`.")] = None,
    methods: Annotated[str | None, typer.Option(help="Names with commas between; see `rwalk list`.")] = None,
    exemplars: Annotated[str, typer.Option(help="Exemplars of each class; several with commas between.")] = "0",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for all runs, such as epochs=2 or rwalk.delta_t=5.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds.")] = None,
    against: Annotated[str | None, typer.Option(help="Label that the others are compared with.")] = None,
    intransigence: Annotated[bool, typer.Option(help="Train the joint reference (once; it is kept).")] = True,
    jobs: Jobs = -1,
) -> None:
    """Compare methods over seeds: means, deviations, differences seed by seed, the forgetting–intransigence plane."""
    shared = options_.settings(settings or [])
    if spec is None:
        if benchmark is None or methods is None:
            raise ValueError("give --spec, or --benchmark and --methods")
        chosen = _from_options(benchmark, methods, exemplars, shared, seeds or 5, against, intransigence)
    else:
        given = load_comparison(spec)
        changes = {"base": {**given.base, **shared}, **({"seeds": seeds} if seeds else {})}
        changes |= {"against": against} if against else {}
        chosen = build_comparison({**given.model_dump(), "intransigence": intransigence, **changes})
    rows, _ = _carried_out(chosen.specs(), chosen, out, jobs)
    base = chosen.against or list(chosen.runs)[-1]
    tables_.comparison(console, rows, base)
    write_json({"against": base, "rows": [row.to_dict() for row in rows]}, out / "comparison.json")
    picture = draw_plane(rows, out / "plane.svg")
    console.print(", ".join(str(p) for p in (out / "comparison.json", picture) if p), highlight=False, soft_wrap=True)
    _complain(rows)


@studies.command()
def tune(
    grid: Annotated[list[str], typer.Option(help="KEY=A,B,C: values to try; may be repeated.")],
    out: Out,
    benchmark: Annotated[str, typer.Option(help="What to learn; see `rwalk list`.")],
    method: Annotated[str, typer.Option(help="How; see `rwalk list`.")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE for all runs.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 2,
    metric: Annotated[str, typer.Option(help="What is to be highest.")] = "average_accuracy",
    jobs: Jobs = -1,
) -> None:
    """Choose settings on training data held out (a tenth, or --set validation=SHARE); test data is not looked at."""
    base = {"benchmark": benchmark, "method": method, **options_.settings(settings or [])}
    specs = candidates(base, options_.values(grid))
    plan = Comparison(runs={label: {} for label in specs}, seeds=tuple(range(seeds)), intransigence=False)
    rows, _ = _carried_out(specs, plan, out, jobs)
    winner = best(rows, metric)
    tables_.comparison(console, rows, winner.label)
    write_json({"metric": metric, "best": winner.label, "rows": [row.to_dict() for row in rows]}, out / "tuning.json")
    console.print(f"best: {winner.label}  ({out / 'tuning.json'})", highlight=False, soft_wrap=True)
    _complain(rows)


@studies.command()
def reproduce(
    table: Annotated[str | None, typer.Argument(help="Which; without it, they are listed.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for TABLE.json; its runs go into runs/ there.")] = Path(
        "runs/tables"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="A smaller version: fewer seeds, less data.")] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds.")] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write what --out holds as a Markdown page, and run nothing.")
    ] = None,
    jobs: Jobs = -1,
) -> None:
    """Run a published table again: published figures, ours, difference, seeds, time."""
    if page is not None:
        page.write_text(reproduction_page(out), encoding="utf-8")
        console.print(str(page), highlight=False, soft_wrap=True)
        return
    if table is None:
        display.listing(console, "table", tables())
        return
    chosen = load_table(table, quick=quick, seeds=seeds)
    rows, seconds = _carried_out(chosen.specs(), chosen, out / "runs" / table, jobs)
    found = report(table, chosen, rows, quick=quick, wall_seconds=seconds)
    tables_.reproduction(console, found)
    target = write_json(found, out / f"{table}{'-quick' if quick else ''}.json")
    picture = draw_plane(rows, target.with_suffix(".svg"), title=chosen.title)
    console.print(", ".join(str(path) for path in (target, picture) if path), highlight=False, soft_wrap=True)
    _complain(rows)


def _carried_out(specs: Mapping[str, RunSpec], plan: Comparison, out: Path, jobs: int) -> tuple[list[Row], float]:
    outcomes: list[Outcome] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    began = time.perf_counter()
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("training", total=len(specs) * len(plan.seeds))
        for outcome in run_all(specs, plan.seeds, jobs=jobs, folder=out / "runs", intransigence=plan.intransigence):
            outcomes.append(outcome)
            progress.update(bar, advance=1, description=f"{outcome.label}, seed {outcome.seed}")
    reused = sum(outcome.reused for outcome in outcomes)
    if reused:
        console.print(f"{reused} of {len(outcomes)} runs were finished before.", highlight=False)
    return summarise(outcomes, list(specs), plan.against), time.perf_counter() - began


def _from_options(
    benchmark: str,
    methods: str,
    exemplars: str,
    shared: Mapping[str, Any],
    seeds: int,
    against: str | None,
    intransigence: bool,
) -> Comparison:
    """Every method with every number of exemplars; ``-S`` marks those that replay, as in the paper."""
    counts = options_.counts(exemplars)
    several = len([count for count in counts if count]) > 1
    runs = {
        f"{method.strip()}{f'-S{count}' if several and count else '-S' if count else ''}": {
            "method": method.strip(),
            "exemplars": count,
        }
        for count in counts
        for method in methods.split(",")
    }
    base = {"benchmark": benchmark, **shared}
    plan = {"seeds": seeds, "base": base, "runs": runs, "against": against, "intransigence": intransigence}
    return build_comparison(plan)


def _complain(rows: Sequence[Row]) -> None:
    """Name what failed, and end with an exit status that says so."""
    failed = [(row.label, seed, error) for row in rows for seed, error in row.errors.items()]
    for label, seed, error in failed:
        console.print(f"failed: {label}, seed {seed}: {error}", highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)
