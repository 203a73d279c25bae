"""The command that carries out a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rwalk.cli import display
from rwalk.cli import options as options_
from rwalk.cli import tables as tables_
from rwalk.cli.options import AllJobs, AsJson, Every, Out
from rwalk.cli.working import complain, work_through
from rwalk.experiments import RunSpec, summarise
from rwalk.experiments.backends import BACKENDS, cluster
from rwalk.experiments.results import write_json
from rwalk.experiments.summary import Row
from rwalk.experiments.sweep import load_sweep
from rwalk.experiments.tidy import tidy, write_tables

__all__ = ["sweeping"]

sweeping = typer.Typer()
console = Console()

MOST_ROWS = 30  # of a table on a terminal
WRITTEN = ("sweep.json", "results.csv", "results.parquet")


@sweeping.command(
    epilog="""\b
Examples:
  rwalk sweep sweep.yaml --out runs/sweep
  rwalk sweep sweep.yaml --seeds 1 --set epochs=1 --out runs/trial
  rwalk sweep sweep.yaml --backend ray --address auto --out /shared/sweep

\b
sweep.yaml:
  seeds: 3
  base: {exemplars: 2}
  grid: {benchmark: [split-digits, permuted-digits]}
  methods:
    fine-tuning: {}
    rwalk: {lambda: [1, 10, 100]}"""
)
def sweep(
    spec: Annotated[Path, typer.Argument(help="YAML file with methods, grid, seeds, base.")],
    out: Out,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="For all runs, such as epochs=2 or validation=0.1."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many seeds.")] = None,
    backend: Annotated[str, typer.Option(help=f"Who works: {', '.join(BACKENDS)}.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="Of the cluster; without it the environment's, or one on this machine.")
    ] = None,
    jobs: AllJobs = -1,
    checkpoint_every: Every = 0,
    as_json: AsJson = False,
) -> None:
    """Run a grid of methods, strengths, seeds and benchmarks; results as a table with a row a run (CSV, parquet).

    Called again, it runs what is not finished. Several such commands may share a folder.
    """
    for name in WRITTEN:
        options_.refuse_inputs("--out", out / name, [spec])
    chosen = load_sweep(spec, base=options_.settings(settings or []) or None, seeds=seeds)
    specs = chosen.specs()
    with cluster(backend, address, jobs=jobs) as workers:
        outcomes, seconds = work_through(
            console, specs, chosen.seeds, out, jobs=jobs, every=checkpoint_every,
            intransigence=chosen.intransigence, workers=workers, shared=True, quiet=as_json,
        )  # fmt: skip
    rows = summarise(outcomes, list(specs))
    table = tidy(outcomes, specs)
    files = [*write_tables(table, out), out / WRITTEN[0]]
    listed = [{**row.to_dict(), "differences": {}} for row in rows]
    write_json({"sweep": chosen.model_dump(mode="json"), "wall_seconds": round(seconds, 1), "rows": listed}, files[-1])
    if as_json:
        display.show_json(console, table)
    else:
        _show(rows, specs)
        display.tell(console, ", ".join(map(str, files)))
    complain(console, outcomes, quiet=as_json)


def _show(rows: Sequence[Row], specs: Mapping[str, RunSpec]) -> None:
    """All rows, or where they are many the most accurate of each benchmark and method."""
    shown, title = [row for row in rows if row.results], None
    if len(shown) > MOST_ROWS:
        groups: dict[tuple[str, str], list[Row]] = {}
        for row in shown:
            groups.setdefault((specs[row.label].benchmark, specs[row.label].method), []).append(row)
        shown = [max(group, key=_accuracy) for group in groups.values()]
        judged = "held-out training data" if next(iter(specs.values())).validation else "test data"
        title = f"The most accurate on {judged} of each method; all {len(rows)} are in results.csv"
    if shown:
        tables_.comparison(console, shown[:MOST_ROWS], None, title=title)


def _accuracy(row: Row) -> float:
    spread = row.spread("average_accuracy")
    return -1.0 if spread is None else spread[0]
