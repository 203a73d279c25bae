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
from rwalk.experiments.holding import held
from rwalk.experiments.loading import merged
from rwalk.experiments.page import reproduction_page
from rwalk.experiments.reproduce import load_table, report, tables
from rwalk.experiments.results import check_folder, write_json
from rwalk.experiments.summary import Row
from rwalk.experiments.tune import BETTER, best, candidates, check_metric
from rwalk.report.plane import draw_plane

__all__ = ["studies"]

studies = typer.Typer()
console = Console()

Jobs = Annotated[int, typer.Option(help="Processes; -1 for one per core.")]
Every = Annotated[int, typer.Option(min=0, help="Write a checkpoint of each run every so many batches; 0 for none.")]
Out = Annotated[Path, typer.Option(help="Folder for results; runs finished there are kept, others go on.")]


@studies.command()
def compare(
    out: Out,
    spec: Annotated[Path | None, typer.Option(help="YAML file with base, runs, seeds, against.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="What to learn; see `rwalk list`.")] = None,
    methods: Annotated[str | None, typer.Option(help="Names with commas between; see `rwalk list`.")] = None,
    exemplars: Annotated[
        str | None, typer.Option(help="Exemplars of each class, 0 if not given; several with commas between.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for all runs, such as epochs=2 or rwalk.delta_t=5.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds.")] = None,
    against: Annotated[str | None, typer.Option(help="Label that the others are compared with.")] = None,
    intransigence: Annotated[
        bool | None, typer.Option(help="Train the joint reference (once; it is kept), which is what happens otherwise.")
    ] = None,
    jobs: Jobs = -1,
    checkpoint_every: Every = 0,
) -> None:
    """Compare methods over seeds: means, deviations, differences seed by seed, the forgetting–intransigence plane."""
    shared = options_.settings(settings or [])
    plan = {"seeds": seeds, "against": against, "intransigence": intransigence}
    given = {name: value for name, value in plan.items() if value is not None}
    if spec is None:
        if benchmark is None or methods is None:
            raise ValueError("give --spec, or --benchmark and --methods")
        runs = _runs(methods, options_.counts(exemplars or "0"))
        chosen = build_comparison({"base": {"benchmark": benchmark, **shared}, "runs": runs, **given})
    else:
        for name, value in {"benchmark": benchmark, "methods": methods, "exemplars": exemplars}.items():
            if value is not None:
                raise ValueError(
                    f"--{name} {value}: the runs are those of --spec {spec}; use --set to change all of them"
                )
        stored = load_comparison(spec)
        changed = {label: merged(settings, shared) for label, settings in stored.runs.items()}
        chosen = build_comparison({**stored.model_dump(), "runs": changed, **given})
    specs = chosen.specs()
    outcomes, _ = _carried_out(specs, chosen, out, jobs, checkpoint_every)
    base = chosen.against or list(chosen.runs)[-1]
    rows = summarise(outcomes, list(chosen.runs), base)
    untuned = [label for label, of_label in specs.items() if not of_label.is_tuned()]
    tables_.comparison(console, rows, base, untuned)
    listed = [{**row.to_dict(), "tuned": row.label not in untuned} for row in rows]
    write_json({"against": base, "rows": listed}, out / "comparison.json")
    picture = draw_plane(rows, out / "plane.svg")
    console.print(
        display.plain(", ".join(str(p) for p in (out / "comparison.json", picture) if p)),
        highlight=False,
        soft_wrap=True,
    )
    _complain(rows)


@studies.command()
def tune(
    grid: Annotated[list[str], typer.Option(help="KEY=A,B,C: values to try; may be repeated.")],
    out: Out,
    benchmark: Annotated[str, typer.Option(help="What to learn; see `rwalk list`.")],
    method: Annotated[str, typer.Option(help="How; see `rwalk list`.")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE for all runs.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 2,
    metric: Annotated[
        str,
        typer.Option(help=f"What to choose by: {', '.join(BETTER)}."),
    ] = "average_accuracy",
    jobs: Jobs = -1,
    checkpoint_every: Every = 0,
) -> None:
    """Choose settings on training data held out (a tenth, or --set validation=SHARE); test data is not looked at."""
    check_metric(metric)
    base = {"benchmark": benchmark, "method": method, **options_.settings(settings or [])}
    specs = candidates(base, options_.values(grid))
    plan = Comparison(runs={label: {} for label in specs}, seeds=tuple(range(seeds)), intransigence=False)
    outcomes, _ = _carried_out(specs, plan, out, jobs, checkpoint_every)
    winner = best(summarise(outcomes, list(specs)), metric)
    rows = summarise(outcomes, list(specs), winner.label)
    tables_.comparison(console, rows, winner.label)
    write_json({"metric": metric, "best": winner.label, "rows": [row.to_dict() for row in rows]}, out / "tuning.json")
    told = display.plain(f"best: {winner.label}  ({out / 'tuning.json'})")
    console.print(told, highlight=False, soft_wrap=True)
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
    checkpoint_every: Every = 0,
) -> None:
    """Run a published table again: published figures, ours, difference, seeds, time."""
    if page is not None:
        page.write_text(reproduction_page(out, page), encoding="utf-8")
        console.print(display.plain(page), highlight=False, soft_wrap=True)
        return
    if table is None:
        display.listing(console, "table", tables())
        return
    chosen = load_table(table, quick=quick, seeds=seeds)
    outcomes, seconds = _carried_out(chosen.specs(), chosen, out / "runs" / table, jobs, checkpoint_every)
    rows = summarise(outcomes, list(chosen.runs), chosen.against)
    reused = sum(outcome.reused for outcome in outcomes)
    found = report(table, chosen, rows, quick=quick, wall_seconds=seconds, reused=reused)
    tables_.reproduction(console, found)
    target = write_json(found, out / f"{table}{'-quick' if quick else ''}.json")
    picture = draw_plane(rows, target.with_suffix(".svg"), title=chosen.title, published=chosen.published)
    console.print(
        display.plain(", ".join(str(path) for path in (target, picture) if path)), highlight=False, soft_wrap=True
    )
    _complain(rows)


def _carried_out(
    specs: Mapping[str, RunSpec], plan: Comparison, out: Path, jobs: int, every: int
) -> tuple[list[Outcome], float]:
    """What became of every run, and how many seconds it took."""
    check_folder(out, overwrite=True)
    outcomes: list[Outcome] = []
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    began = time.perf_counter()
    with held(out), Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("training", total=len(specs) * len(plan.seeds))
        runs = run_all(specs, plan.seeds, jobs=jobs, folder=out / "runs", intransigence=plan.intransigence, every=every)
        for outcome in runs:
            outcomes.append(outcome)
            for note in outcome.notes:
                progress.console.print(display.plain(note), highlight=False, soft_wrap=True)
            progress.update(bar, advance=1, description=f"{display.plain(outcome.label)}, seed {outcome.seed}")
    reused = sum(outcome.reused for outcome in outcomes)
    if reused:
        console.print(f"{reused} of {len(outcomes)} runs were finished before.", highlight=False)
    return outcomes, time.perf_counter() - began


def _runs(methods: str, counts: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Every method with every number of exemplars; ``-S`` marks those that replay, as in the paper."""
    several = len([count for count in counts if count]) > 1
    return {
        f"{method.strip()}{f'-S{count}' if several and count else '-S' if count else ''}": {
            "method": method.strip(),
            "exemplars": count,
        }
        for count in counts
        for method in methods.split(",")
    }


def _written(*paths: Path | None) -> None:
    told = ", ".join(str(path) for path in paths if path)
    console.print(display.plain(told), highlight=False, soft_wrap=True)


def _complain(rows: Sequence[Row]) -> None:
    """Name what failed, and end with an exit status that says so."""
    failed = [(row.label, seed, error) for row in rows for seed, error in row.errors.items()]
    for label, seed, error in failed:
        console.print(display.plain(f"failed: {label}, seed {seed}: {error}"), highlight=False, soft_wrap=True)
    if failed:
        raise typer.Exit(1)
