"""The commands that carry out many runs: compare, reproduce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rwalk.cli import display
from rwalk.cli import options as options_
from rwalk.cli import tables as tables_
from rwalk.cli.options import AsJson, Every, Jobs, Out
from rwalk.cli.working import complain, work_through
from rwalk.experiments import load_comparison, summarise
from rwalk.experiments.comparison import build_comparison
from rwalk.experiments.gathering import gathered
from rwalk.experiments.loading import merged
from rwalk.experiments.page import reproduction_page
from rwalk.experiments.reproduce import load_table, report, tables
from rwalk.experiments.results import write_json
from rwalk.experiments.writing import writing_whole
from rwalk.report.plane import draw_plane

__all__ = ["studies"]

studies = typer.Typer()
console = Console()


@studies.command(
    epilog="""\b
Examples:
  rwalk compare --benchmark split-digits --methods fine-tuning,rwalk \\
      --exemplars 0,2 --seeds 3 --out runs/compared
  rwalk compare --spec comparison.yaml --set epochs=2 --out runs/mine"""
)
def compare(
    out: Out,
    spec: Annotated[Path | None, typer.Option(help="YAML file with base, runs, seeds, against.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="What to learn; see `rwalk list`.")] = None,
    methods: Annotated[str | None, typer.Option(help="Names with commas between; see `rwalk list`.")] = None,
    exemplars: Annotated[
        str | None,
        typer.Option(help="Exemplars of each class, as --set says if not given; several with commas between."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="For all runs, such as epochs=2 or rwalk.delta_t=5."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds.")] = None,
    against: Annotated[str | None, typer.Option(help="Label that the others are compared with.")] = None,
    intransigence: Annotated[
        bool | None, typer.Option(help="Train the joint reference (once; it is kept), as --spec says; else yes.")
    ] = None,
    jobs: Jobs = -1,
    checkpoint_every: Every = 0,
    as_json: AsJson = False,
) -> None:
    """Compare methods over seeds: means, deviations, differences seed by seed, the forgetting–intransigence plane."""
    shared = options_.settings(settings or [])
    plan = {"seeds": seeds, "against": against, "intransigence": intransigence}
    given = {name: value for name, value in plan.items() if value is not None}
    if "method" in shared:
        where = "--methods names them" if spec is None else f"{spec} names them, run by run"
        raise ValueError(f"--set method={shared['method']}: {where}")
    if spec is None:
        if benchmark is None or methods is None:
            raise ValueError("give --spec, or --benchmark and --methods")
        options_.refuse_twice(shared, benchmark=benchmark, exemplars=exemplars)
        runs = _runs(methods, None if exemplars is None else options_.counts(exemplars))
        chosen = build_comparison({"base": {**shared, "benchmark": benchmark}, "runs": runs, **given})
    else:
        for name, value in {"benchmark": benchmark, "methods": methods, "exemplars": exemplars}.items():
            if value is not None:
                raise ValueError(
                    f"--{name} {value}: the runs are those of --spec {spec}; use --set to change all of them"
                )
        for name in ("comparison.json", "plane.svg"):
            options_.refuse_inputs("--out", out / name, [spec])
        stored = load_comparison(spec)
        rwalk = {"rwalk": shared.pop("rwalk")} if "rwalk" in shared else {}
        changed = {label: merged(settings, shared) for label, settings in stored.runs.items()}
        if rwalk:  # of those that read it
            readers = [label for label, of_label in stored.specs().items() if of_label.reads_rwalk]
            changed |= {label: merged(changed[label], rwalk) for label in readers or changed}
        chosen = build_comparison({**stored.model_dump(), "runs": changed, **given})
    specs = chosen.specs()
    outcomes, _ = work_through(
        console, specs, chosen.seeds, out, jobs=jobs, every=checkpoint_every, intransigence=chosen.intransigence,
        quiet=as_json,
    )  # fmt: skip
    base = chosen.against or list(chosen.runs)[-1]
    rows = summarise(outcomes, list(chosen.runs), base)
    untuned = [label for label, of_label in specs.items() if not of_label.is_tuned()]
    content = {
        "against": base,
        "rows": [{**row.to_dict(), "tuned": row.label not in untuned} for row in rows],
    }
    write_json(content, out / "comparison.json")
    picture = draw_plane(rows, out / "plane.svg")
    if as_json:
        display.show_json(console, content)
    else:
        tables_.comparison(console, rows, base, untuned)
        display.tell(console, ", ".join(str(path) for path in (out / "comparison.json", picture) if path))
    complain(console, outcomes, quiet=as_json)


@studies.command(
    epilog="""\b
Examples:
  rwalk reproduce
  rwalk reproduce eccv2018-mnist-singlehead --quick
  rwalk reproduce eccv2018-mnist-singlehead --out results
  rwalk reproduce eccv2018-cifar100 --row RWalk-S --seeds 1 --out results
  rwalk reproduce eccv2018-cifar100 --finished --out results
  rwalk reproduce --page page.md --out results"""
)
def reproduce(
    table: Annotated[str | None, typer.Argument(help="Which; without it, they are listed.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for TABLE.json; its runs go into runs/ there.")] = Path(
        "runs/tables"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="A smaller version: fewer seeds, less data.")] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds.")] = None,
    row: Annotated[
        list[str] | None,
        typer.Option(help="Only the row with this label, in TABLE.json too; may be repeated.", metavar="LABEL"),
    ] = None,
    finished: Annotated[
        bool, typer.Option("--finished", help="Run nothing: TABLE.json of the runs that are finished in --out.")
    ] = False,
    page: Annotated[
        Path | None, typer.Option(help="Write what --out holds as a Markdown page, and run nothing.")
    ] = None,
    jobs: Jobs = -1,
    checkpoint_every: Every = 0,
    as_json: AsJson = False,
) -> None:
    """Run a published table again: published figures, ours, difference, seeds, time."""
    if page is not None:
        _write_page(out, page, as_json=as_json)
        return
    if table is None:
        _list_tables({"quick": quick, "seeds": seeds, "row": row, "finished": finished}, as_json=as_json)
        return
    chosen = load_table(table, quick=quick, seeds=seeds, rows=row)
    folder, seconds = out / "runs" / table, 0.0
    if finished:
        outcomes = gathered(chosen.specs(), chosen.seeds, folder / "runs", intransigence=chosen.intransigence)
        if not outcomes:
            raise ValueError(f"no run of table {table} is finished in {folder}: without --finished they are run")
        done = {outcome.label for outcome in outcomes}
        chosen = load_table(table, quick=quick, seeds=seeds, rows=[label for label in chosen.runs if label in done])
        chosen = chosen.model_copy(update={"seeds": tuple(sorted({outcome.seed for outcome in outcomes}))})
    else:
        outcomes, seconds = work_through(
            console, chosen.specs(), chosen.seeds, folder, jobs=jobs, every=checkpoint_every,
            intransigence=chosen.intransigence, quiet=as_json,
        )  # fmt: skip
    rows = summarise(outcomes, list(chosen.runs), chosen.against)
    reused = sum(outcome.reused for outcome in outcomes)
    found = report(table, chosen, rows, quick=quick, wall_seconds=seconds, reused=reused)
    target = write_json(found, out / f"{table}{'-quick' if quick else ''}.json")
    picture = draw_plane(rows, target.with_suffix(".svg"), title=chosen.title, published=chosen.published)
    if as_json:
        display.show_json(console, found)
    else:
        tables_.reproduction(console, found)
        display.tell(console, ", ".join(str(path) for path in (target, picture) if path))
    complain(console, outcomes, quiet=as_json)


def _write_page(out: Path, page: Path, *, as_json: bool) -> None:
    options_.refuse_inputs("--page", page, out.glob("*.json"))
    content = reproduction_page(out, page)
    with writing_whole(page) as file:
        file.write(content.encode())
    if as_json:
        display.show_json(console, {"page": str(page)})
    else:
        display.tell(console, page)


def _list_tables(given: Mapping[str, Any], *, as_json: bool) -> None:
    known = tables()
    for name, value in given.items():
        if value:
            raise ValueError(f"--{name} without a TABLE: name one, such as `rwalk reproduce {next(iter(known))}`")
    if as_json:
        display.show_json(console, known)
    else:
        display.listing(console, "table", known)


def _runs(methods: str, counts: Sequence[int] | None) -> dict[str, dict[str, Any]]:
    """Every method with every number of exemplars; ``-S`` marks those that replay, as in the paper."""
    called = options_.names("--methods", methods)
    if counts is None:
        return {name: {"method": name} for name in called}
    several = len([count for count in counts if count]) > 1
    return {
        f"{name}{f'-S{count}' if several and count else '-S' if count else ''}": {"method": name, "exemplars": count}
        for count in counts
        for name in called
    }
