"""The commands, and how their options become a spec."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from rwalk import __version__
from rwalk.cli import demo as demonstration
from rwalk.cli import display, options
from rwalk.cli.completion import completing
from rwalk.cli.joint import joint_accuracies
from rwalk.cli.options import AsJson, examples
from rwalk.cli.reports import reports
from rwalk.cli.signals import when_signalled
from rwalk.cli.state_files import state_files
from rwalk.cli.studies import studies
from rwalk.cli.sweeping import sweeping
from rwalk.cli.tuning import tuning
from rwalk.experiments import METHODS, RunResult, RunSpec, load_spec, reference_for
from rwalk.experiments.carrying import CHECKPOINTS, Replacing, begun, carry_out, finished, refer
from rwalk.experiments.holding import held
from rwalk.experiments.loading import merged
from rwalk.experiments.results import RESULT, Reference, check_folder
from rwalk.streams import benchmarks
from rwalk.training import CheckpointPlugin

__all__ = ["app"]

app = typer.Typer(
    help="Riemannian Walk: keep what a network has learned while it learns something new.",
    epilog="""\b
Examples:
  rwalk demo
  rwalk run --benchmark split-digits --method rwalk --out runs/first
  rwalk COMMAND --help
\b
Exit status:
  0    all is well
  1    refused or failed, in one line on standard error; some of many runs
       failed; `diff`: the files differ
  2    no such command or option
  130  interrupted (SIGINT)       143  terminated (SIGTERM)
\b
Completion in the shell: see `rwalk completion --help`.""",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console()


def _version(wanted: bool) -> None:
    if wanted:
        console.print(f"rwalk {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None: ...


@app.command("list", epilog=examples("rwalk list", "rwalk list --json"))
def list_(as_json: AsJson = False) -> None:
    """List the benchmarks and methods that `run` knows."""
    methods = {name: method.summary for name, method in METHODS.items()}
    if as_json:
        display.show_json(console, {"benchmarks": benchmarks(), "methods": methods})
        return
    display.listing(console, "benchmark", benchmarks())
    display.listing(console, "method", methods)


@app.command(epilog=examples("rwalk demo", "rwalk demo --seeds 2 --out runs/demo"))
def demo(
    seeds: Annotated[int, typer.Option(min=2, help="Runs of each method.")] = demonstration.SEEDS,
    out: Annotated[Path | None, typer.Option(help="Also keep each run's result.json under this folder.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace runs stored in --out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare fine-tuning, RWalk, replay, and RWalk + replay on real data that comes with the package."""
    demonstration.demo(console, seeds, out, overwrite=overwrite, as_json=as_json)


@app.command(
    "run",
    epilog=examples(
        "rwalk run --benchmark split-digits --method rwalk --out runs/first",
        "rwalk run --benchmark split-digits --method rwalk --exemplars 2 \\",
        "    --intransigence --out runs/replay",
        "rwalk run --spec run.yaml --set rwalk.delta_t=5 --out runs/mine",
        "rwalk run --spec run.yaml --checkpoint-every 500 --resume --out runs/long",
    ),
)
def run_(
    out: Annotated[Path, typer.Option(help="Folder for result.json.")],
    benchmark: Annotated[str | None, typer.Option(help="What to learn; see `rwalk list`.")] = None,
    method: Annotated[str | None, typer.Option(help="How; see `rwalk list`.")] = None,
    spec: Annotated[Path | None, typer.Option(help="YAML file with settings; options win over it.")] = None,
    model: Annotated[str | None, typer.Option(help="Network: a name, or package.module:function.")] = None,
    heads: Annotated[str | None, typer.Option(help="single, masked, current, multi or growing.")] = None,
    task_labels: Annotated[bool, typer.Option("--task-labels", help="Tell tasks apart, also in testing.")] = False,
    exemplars: Annotated[int | None, typer.Option(help="Replayed exemplars of each class.")] = None,
    sampler: Annotated[str | None, typer.Option(help="How exemplars are chosen.")] = None,
    replay_batch_size: Annotated[int | None, typer.Option(help="Replayed samples in a batch.")] = None,
    ewc_lambda: Annotated[float | None, typer.Option(help="Strength of RWalk's penalty.")] = None,
    ewc_alpha: Annotated[float | None, typer.Option(help="Weight of the new term in the Fisher.")] = None,
    delta_t: Annotated[int | None, typer.Option(help="Steps in a window of the path score.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over each experience.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="New samples in a batch.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam, adamw, sgd or momentum.")] = None,
    n_experiences: Annotated[int | None, typer.Option(help="Into how many experiences.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seeds everything that is random.")] = None,
    shuffle_classes: Annotated[bool, typer.Option("--shuffle-classes", help="Draw the classes' order.")] = False,
    device: Annotated[str | None, typer.Option(help="Torch device.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the CPU.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any key of a spec, such as validation=0.1."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="Result of a `joint` run on the same stream; gives intransigence."),
    ] = None,
    intransigence: Annotated[
        bool, typer.Option("--intransigence", help="Train the joint references (once; they are kept).")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run stored in --out.")] = False,
    checkpoint_every: Annotated[
        int, typer.Option(min=0, help="Write a checkpoint every so many batches, and when told to end; 0 for none.")
    ] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out; begin where there is none.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train on a stream of experiences and store accuracy matrix and metrics."""
    if resume and overwrite:
        raise ValueError("--resume goes on with what --out holds, --overwrite replaces it: give one of them")
    given = {
        "benchmark": benchmark,
        "method": method,
        "model": model,
        "heads": heads,
        "task_labels": task_labels or None,
        "exemplars": exemplars,
        "sampler": sampler,
        "replay_batch_size": replay_batch_size,
        "rwalk": _present(ewc_lambda=ewc_lambda, ewc_alpha=ewc_alpha, delta_t=delta_t),
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "optimizer": optimizer,
        "n_experiences": n_experiences,
        "seed": seed,
        "shuffle_classes": shuffle_classes or None,
        "device": device,
        "threads": threads,
    }
    chosen = load_spec(spec, **merged(options.settings(settings or []), _present(**given)))
    _refuse_ignored(chosen, sampler=sampler, replay_batch_size=replay_batch_size)
    if reference is not None and overwrite:
        options.refuse_inputs("--out", out / RESULT, [reference, reference / RESULT])
    stored = None if reference is None else joint_accuracies(reference, chosen)
    with held(check_folder(out, overwrite=overwrite or resume)):

        def joint() -> Reference | None:
            if not intransigence or stored is not None:
                return stored
            with Console(stderr=True).status("joint references"):
                return reference_for(chosen)

        result = _done_before(out, chosen) if resume else None
        if result is None:
            checkpoint = _checkpoint(out, checkpoint_every, resume=resume, overwrite=overwrite)
            asked = nullcontext() if checkpoint is None else when_signalled(checkpoint.stop)
            with asked, display.run_progress(Console(stderr=True)) as progress:
                result = carry_out(chosen, out, plugins=[progress], reference=joint, checkpoint=checkpoint)
        elif stored is not None or None in (result.reference or [None]):
            found = joint()
            result = result if found is None else refer(out, result, found)
    if as_json:
        display.show_json(console, result.to_dict())
        return
    display.matrix(console, result.matrix)
    display.metrics(console, result.metrics)
    display.tell(console, f"{out / RESULT}  ({result.seconds:.1f} s)")


for group in (sweeping, studies, tuning, reports, state_files, completing):
    app.add_typer(group)


def _refuse_ignored(spec: RunSpec, **given: Any) -> None:
    """Options that say how exemplars are replayed, where there are none."""
    for name, value in given.items():
        if value is not None and not (spec.exemplars or spec.exemplars_total):
            raise ValueError(f"--{name.replace('_', '-')} {value}: nothing is replayed; give --exemplars too")


def _done_before(folder: Path, spec: RunSpec) -> RunResult | None:
    """The result that is stored in the folder, if it is this run's; None too if another's is being replaced."""
    found = finished(folder, lambda note: display.tell(Console(stderr=True), note))
    if found is None:
        return None
    if found.spec.canonical() == spec.canonical():
        CheckpointPlugin(folder / CHECKPOINTS, every=0).clear()  # it was ended before they were gone
        return found
    if begun(folder):  # whose the checkpoints are is seen where they are read
        return None
    raise FileExistsError(f"{folder} holds another run ({RESULT}): choose another folder, or --overwrite it")


def _checkpoint(folder: Path, every: int, *, resume: bool, overwrite: bool) -> CheckpointPlugin | None:
    """What writes checkpoints, if any are asked for or gone on from."""
    checkpoint = Replacing(folder, every)
    if begun(folder) and not resume:
        if not overwrite:
            raise FileExistsError(f"{folder} holds a run that was interrupted: --resume it, or --overwrite it")
        checkpoint.clear()
    return checkpoint if every or begun(folder) else None


def _present(**values: Any) -> dict[str, Any]:
    """What was given of some options."""
    return {name: value for name, value in values.items() if value is not None and value != {}}
