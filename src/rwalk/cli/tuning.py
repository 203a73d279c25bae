"""The command that chooses settings: by trial task for task, by a grid, or by Optuna."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from rwalk.cli import display
from rwalk.cli import options as options_
from rwalk.cli import tables as tables_
from rwalk.cli.options import AsJson, Every, Jobs, Out
from rwalk.cli.working import Counter, complain, work_through
from rwalk.errors import closest
from rwalk.experiments import Outcome, RunSpec, summarise
from rwalk.experiments.holding import held
from rwalk.experiments.loading import build_spec, differing, flat
from rwalk.experiments.plasticity import Decay, searchable
from rwalk.experiments.pool import carried_out
from rwalk.experiments.racing import Race, behind_by, kept_of
from rwalk.experiments.results import check_folder, write_json
from rwalk.experiments.searching import Search, chosen_strength
from rwalk.experiments.suggesting import AT_ONCE, Suggestions, spaces
from rwalk.experiments.tune import BETTER, VALIDATION, best, candidates, check_metric, cost

__all__ = ["SEARCHES", "tuning"]

tuning = typer.Typer()
console = Console()

TRIALS = 20  # of Optuna, where nothing is said of them
SEARCHES = ("race", "continual", "grid", "optuna")

#: Options that each of them reads.
READS = {
    "race": ("keep", "start", "end", "decay", "tolerance"),
    "continual": ("start", "decay", "tolerance"),
    "grid": ("grid", "metric"),
    "optuna": ("grid", "metric", "trials"),
}


@tuning.command(
    epilog="""\b
Examples:
  rwalk tune --benchmark split-digits --method rwalk \\
      --set exemplars=2 --out runs/lambda
  rwalk tune --benchmark split-digits --method rwalk \\
      --grid rwalk.ewc_lambda=1,3,10 --set exemplars=2 --out runs/grid
  rwalk tune --benchmark split-digits --method rwalk --search optuna \\
      --grid rwalk.ewc_lambda=0.1:1000 --trials 20 --out runs/optuna"""
)
def tune(
    out: Out,
    benchmark: Annotated[str, typer.Option(help="What to learn; see `rwalk list`.")],
    method: Annotated[str, typer.Option(help="How; see `rwalk list`.")],
    search: Annotated[
        str | None,
        typer.Option(
            help="race: several λ side by side, without later tasks; continual: λ task by task, by the new task "
            "alone; grid; optuna. Without it, grid where there is a --grid, else race where exemplars or samples are "
            "kept, else continual."
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES", help="KEY=A,B,C: values to try; for optuna also KEY=LOW:HIGH; may be repeated."
        ),
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="For all runs.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 2,
    metric: Annotated[
        str | None,
        typer.Option(help=f"What grid and optuna choose by: {', '.join(BETTER)}; average_accuracy if not given."),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            min=1, help="race: held-out samples of each past class to judge by; as many as exemplars if not given."
        ),
    ] = None,
    start: Annotated[float | None, typer.Option(help="race, continual: the strongest λ; 100000 if not given.")] = None,
    end: Annotated[float | None, typer.Option(help="race: the weakest λ; 0.1 if not given.")] = None,
    decay: Annotated[
        float | None, typer.Option(help="race, continual: factor from a λ to the next; 0.316 or 0.5 if not given.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="race: how far behind a λ drops out; continual: share of a task's accuracy that may be lost; 0.05 "
            "if not given."
        ),
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="optuna: how many; 20 if not given.")] = None,
    jobs: Jobs = -1,
    checkpoint_every: Every = 0,
    as_json: AsJson = False,
) -> None:
    """Choose settings on training data held out (a tenth, or --set validation=SHARE); test data is not looked at."""
    shared = options_.settings(settings or [])
    options_.refuse_twice(shared, benchmark=benchmark, method=method)
    base = {**shared, "benchmark": benchmark, "method": method}
    _refuse_tried(shared, grid or [])
    search = search or ("grid" if grid else None)
    if search is None:
        search = "race" if keep or base.get("exemplars") or base.get("exemplars_total") else "continual"
    if search not in SEARCHES:
        raise ValueError(f"--search {search}{closest(search, SEARCHES)}: choose one of {', '.join(SEARCHES)}")
    given = {
        "keep": keep, "end": end, "start": start, "decay": decay, "tolerance": tolerance,
        "grid": grid or None, "metric": metric, "trials": trials,
    }  # fmt: skip
    for name, value in given.items():
        if value is not None and name not in READS[search]:
            raise ValueError(f"--{name}: --search {search} does not read it")
    if decay is not None and not 0.0 < decay < 1.0:
        raise ValueError(f"--decay {decay:g}: expected a number between 0 and 1")
    check_metric(metric or "average_accuracy")
    if search in ("race", "continual"):
        how = {"keep": keep, "start": start, "end": end, "factor": decay, "tolerance": tolerance}
        _as_it_comes(base, search, how, out, seeds, jobs, checkpoint_every, as_json=as_json)
        return
    tried: Mapping[str, Any]
    if search == "grid":
        if not grid:
            raise ValueError("--search grid: give --grid KEY=A,B,C, such as --grid rwalk.ewc_lambda=0.1,1,10")
        tried = options_.values(grid)
        specs = candidates(base, tried)
        outcomes, seconds = work_through(
            console, specs, range(seeds), out, jobs=jobs, every=checkpoint_every, quiet=as_json
        )
    else:
        tried = spaces(grid or [], method)
        suggested = Suggestions(base, tried, metric or "average_accuracy")
        specs, outcomes, seconds = _suggested(suggested, trials or TRIALS, out, seeds, jobs, checkpoint_every)
    chosen_by = metric or "average_accuracy"
    winner = best(summarise(outcomes, list(specs)), chosen_by)
    rows = summarise(outcomes, list(specs), winner.label, also=[chosen_by])
    asked_for = {"grid": grid or []} | ({"trials": trials or TRIALS} if search == "optuna" else {})
    content = {
        "search": search,
        "plan": _stored_plan(base, asked_for),
        "seeds": list(range(seeds)),
        "metric": chosen_by,
        "best": winner.label,
        "chosen": _chosen(specs, winner.label, tried),
        "cost": cost(outcomes, seconds),
        "rows": [row.to_dict() for row in rows],
    }
    write_json(content, out / "tuning.json")
    if as_json:
        display.show_json(console, content)
    else:
        tables_.comparison(console, rows, winner.label)
        spent = f"{len(outcomes)} runs, {sum(row.seconds for row in rows):.0f} s"
        display.tell(console, f"best: {winner.label}  ({spent}; {out / 'tuning.json'})")
    complain(console, outcomes, quiet=as_json)


def _as_it_comes(
    base: Mapping[str, Any],
    search: str,
    settings: Mapping[str, Any],
    out: Path,
    seeds: int,
    jobs: int,
    every: int,
    *,
    as_json: bool,
) -> None:
    """λ found while the stream comes: by a race, or task by task."""
    if every:
        raise ValueError(f"--checkpoint-every: --search {search} does not read it")
    if "seed" in base:
        raise ValueError(f"seed={base['seed']!r}: every search has every seed; say how many with --seeds")
    spec = build_spec({"validation": VALIDATION, **base})
    how = _plan(search, spec, {name: value for name, value in settings.items() if value is not None})
    strength, _, _ = searchable(spec)  # refused here, in one line, and not in each process
    if (given := flat(base).get(strength)) is not None:
        raise ValueError(f"--set {strength}={given}: --search {search} looks for it; --start says where to begin")
    check_folder(out, overwrite=True)
    work = {str(seed): Search.of(spec.model_copy(update={"seed": seed}), how, out / "runs") for seed in range(seeds)}
    began, outcomes = time.perf_counter(), list[Outcome]()
    with held(out), Counter(seeds) as counter:
        for _, outcome in carried_out(work, jobs):
            outcomes.append(outcome)
            counter.count(outcome)
    outcomes.sort(key=lambda outcome: outcome.seed)
    found = [outcome.more for outcome in outcomes if outcome.error is None]
    if found:
        chosen, trainings = chosen_strength(how, found), sum(entry["trainings"] for entry in found)
        tasks = len(found[0]["trials"])
        content = {
            "search": search,
            "plan": _stored_plan(base, asdict(how)),
            "seeds": list(range(seeds)),
            "best": f"{strength}={chosen:g}",
            "chosen": {strength: chosen},
            "cost": {
                "trainings": trainings,
                "runs": round(trainings / tasks, 2),
                "seconds": round(sum(entry["seconds"] for entry in found), 1),
                "wall_seconds": round(time.perf_counter() - began, 1),
            },
            "searches": {str(outcome.seed): outcome.more for outcome in outcomes if outcome.error is None},
        }
        write_json(content, out / "tuning.json")
        if as_json:
            display.show_json(console, content)
        else:
            if isinstance(how, Race):
                _show_race(found, how)
            else:
                _show(found, how)
            display.tell(console, f"best: {strength}={chosen:g}  ({out / 'tuning.json'})")
            display.tell(console, f"It took {trainings} trainings of a task, as many as {trainings / tasks:.1f} runs.")
    complain(console, outcomes, quiet=as_json)


def _refuse_tried(shared: Mapping[str, Any], grid: Sequence[str]) -> None:
    """A ``--set`` that every value of a ``--grid`` would replace."""
    set_before = flat(shared)
    for entry in grid:
        key = entry.partition("=")[0]
        if key in set_before:
            raise ValueError(f"--set {key}={set_before[key]} and --grid {entry}: one key; give one of them")


def _stored_plan(base: Mapping[str, Any], asked_for: Mapping[str, Any]) -> dict[str, Any]:
    """What the command was asked to do, as it is stored."""
    return {"base": json.loads(json.dumps(base, default=str)), **asked_for}


def _plan(search: str, spec: RunSpec, settings: Mapping[str, Any]) -> Decay | Race:
    if search == "continual":
        return Decay(**settings)
    keep = settings.get("keep") or kept_of(spec)
    if not keep:
        raise ValueError(
            "--search race: say with --keep how many held-out samples of each past class there are to judge by; "
            "without any, take --search continual"
        )
    return Race(**{**settings, "keep": keep})


def _show_race(found: Sequence[Mapping[str, Any]], how: Race) -> None:
    title = f"Mean accuracy over the tasks so far in %, by λ, {how.keep} kept samples of a past class"
    table = Table(title=display.plain(title), title_justify="left")
    tasks = range(1, len(found[0]["trials"]))
    for name in ("λ", *(f"after {task + 1}" for task in tasks), "behind"):
        table.add_column(name, justify="right", no_wrap=True)
    behind = [behind_by(entry["trials"]) for entry in found]
    for strength in how.strengths:
        cells = []
        for task in tasks:
            there = [dict(entry["trials"][task]).get(strength) for entry in found]
            known = [value for value in there if value is not None]
            cells.append(f"{100 * sum(known) / len(known):.1f}" if known else "out")
        table.add_row(f"{strength:g}", *cells, f"{100 * sum(seed[strength] for seed in behind) / len(behind):.1f}")
    display.show(console, table)


def _show(found: Sequence[Mapping[str, Any]], how: Decay) -> None:
    title = f"The strongest λ with {1 - how.tolerance:.0%} of fine-tuning's accuracy on the task"
    table = Table(title=display.plain(title), title_justify="left")
    for name in ("task", "fine-tuning %", "with λ %", "λ", "tried"):
        table.add_column(name, justify="right", no_wrap=True)
    for task in range(1, len(found[0]["strengths"])):
        strengths = sorted(entry["strengths"][task] for entry in found)
        reached = [entry["trials"][task][-1][1] for entry in found if entry["strengths"][task]]
        told = f"{strengths[0]:.3g}" + (f" to {strengths[-1]:.3g}" if strengths[-1] > strengths[0] else "")
        plasticity = display.spread([entry["plasticity"][task] for entry in found])
        tried = sum(len(entry["trials"][task]) for entry in found)
        table.add_row(str(task + 1), plasticity, display.spread(reached), told, str(tried))
    display.show(console, table)


def _suggested(
    suggested: Suggestions, trials: int, out: Path, seeds: int, jobs: int, every: int
) -> tuple[dict[str, RunSpec], list[Outcome], float]:
    """Ask for a few combinations at a time, run them, and tell what came of them."""
    specs: dict[str, RunSpec] = {}
    outcomes: list[Outcome] = []
    seconds = 0.0
    while len(specs) < trials:
        asked = suggested.ask(min(AT_ONCE, trials - len(specs)))
        done, spent = work_through(console, asked, range(seeds), out, jobs=jobs, every=every, quiet=True)
        suggested.tell(summarise(done, list(asked)))
        specs, outcomes, seconds = {**specs, **asked}, [*outcomes, *done], seconds + spent
    return specs, outcomes, seconds


def _chosen(specs: Mapping[str, RunSpec], label: str, tried: Iterable[str]) -> dict[str, Any]:
    """The settings of one spec that were tried, or in which specs differ besides."""
    settings = {name: flat(spec.canonical()) for name, spec in specs.items()}
    keys = dict.fromkeys([*tried, *differing(settings.values())])
    return {key: settings[label][key] for key in keys if key in settings[label]}
