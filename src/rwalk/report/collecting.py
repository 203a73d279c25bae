"""Finds what is stored in folders and files, and makes a study of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rwalk.errors import CheckpointError
from rwalk.experiments.loading import flat, nested
from rwalk.experiments.methods import is_strength
from rwalk.experiments.recording import Record
from rwalk.experiments.results import RESULT, read_result
from rwalk.experiments.summary import Difference
from rwalk.metrics import AccuracyMatrix
from rwalk.report.commands import commands_of
from rwalk.report.labels import labels_of
from rwalk.report.stored import StoredRow, StoredSummary, read_summary
from rwalk.report.study import NAMES, Group, Run, Study, readable, shown

__all__ = ["collect"]

LONGEST = 120  # characters of a label
SUMMARIES = ("comparison.json", "tuning.json", "sweep.json")
Found = tuple[Run, dict[str, Any], dict[str, str]]  # a run, its settings, its versions


def collect(paths: Sequence[Path]) -> Study:
    """A study of all runs that are stored in some places.

    Args:
        paths: Each a folder of ``rwalk run``, ``compare``, ``tune``, ``reproduce`` or ``sweep``, or a file of theirs.

    Raises:
        FileNotFoundError: A place is not there, or there is no run.
        CheckpointError: Nothing in it can be read.
    """
    studies = [_study(Path(path)) for path in paths]
    return _shown(studies[0] if len(studies) == 1 else _joined(paths, studies))


def _joined(paths: Sequence[Path], studies: Sequence[Study]) -> Study:
    labels = [group.label for study in studies for group in study.groups]
    groups = []
    for path, study in zip(paths, studies, strict=True):
        for group in study.groups:
            label = group.label if labels.count(group.label) == 1 else f"{group.label} ({Path(path).name})"
            groups.append(replace(group, label=label, differences={}))
    return Study(
        "runs",
        " and ".join(dict.fromkeys(study.title for study in studies)),
        groups,
        versions=_versions([dict(study.versions) for study in studies]),
        commands=[command for study in studies for command in study.commands],
        notes=[note for study in studies for note in study.notes],
    )


def _shown(study: Study) -> Study:
    """With labels that can be shown, and are different."""
    groups: list[Group] = []
    renamed: dict[str, str] = {}
    for group in study.groups:
        label = wanted = shown(group.label, LONGEST)
        number = 1
        while any(label == other.label for other in groups):
            number += 1
            label = f"{wanted} ({number})"
        groups.append(replace(group, label=label))
        renamed.setdefault(group.label, label)
    against, best = (
        None if name is None else renamed.get(name, shown(name, LONGEST)) for name in (study.against, study.best)
    )
    return replace(study, groups=groups, against=against, best=best)


def _study(path: Path) -> Study:
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: name a folder that `rwalk run`, `compare` or `tune` wrote")
    summaries = [path] if path.is_file() and path.name != RESULT else _summaries(path)
    root = path.parent if path.is_file() else path
    if not summaries:
        found, notes = _runs(path)
        if not found:
            raise _nothing(path, notes)
        return _of_runs(path, found, notes)
    if len(summaries) > 1:
        raise ValueError(f"{path} holds {', '.join(file.name for file in summaries)}: name one of them")
    summary = read_summary(summaries[0])
    runs_in = root / "runs" / (summary.table or "")
    found, notes = _runs(runs_in) if runs_in.is_dir() else ([], [])
    return _of_summary(summaries[0], summary, found, notes)


def _summaries(folder: Path) -> list[Path]:
    if not folder.is_dir() or (folder / RESULT).exists():
        return []
    named = [folder / name for name in SUMMARIES if (folder / name).is_file()]
    return named or [file for file in sorted(folder.glob("*.json")) if _is_table(file)]


def _is_table(file: Path) -> bool:
    try:
        return read_summary(file).table is not None
    except (CheckpointError, OSError):
        return False


def _runs(path: Path) -> tuple[list[Found], list[str]]:
    files = [path] if path.is_file() else sorted(path.rglob(RESULT))
    found: list[Found] = []
    notes = []
    for file in files:
        try:
            stored = read_result(file)
            record = None if stored.get("record") is None else Record(**stored["record"])
        except (CheckpointError, OSError, ValueError) as error:
            notes.append(f"left out: {error}")
            continue
        config, seconds = stored.get("config") or {}, stored.get("seconds")
        seed = config.get("seed")
        metrics = {name: value for name in NAMES if isinstance(value := stored.get(name), float | int)}
        run = Run(
            seed if isinstance(seed, int) else 0, metrics, float(seconds or 0.0), stored["accuracy_matrix"], record,
            file.parent,
        )  # fmt: skip
        versions = stored.get("versions")
        known = versions.items() if isinstance(versions, dict) else ()
        found.append((run, config, {str(name): str(version) for name, version in known}))
    return found, notes


def _nothing(path: Path, notes: Sequence[str]) -> Exception:
    if notes:
        return CheckpointError(f"no run in {path} can be read: {notes[0].removeprefix('left out: ')}")
    return FileNotFoundError(f"no {RESULT} in {path}: name a folder that `rwalk run`, `compare` or `tune` wrote")


def _of_runs(path: Path, found: Sequence[Found], notes: Sequence[str]) -> Study:
    """Runs without a summary: a single one, a sweep, or a comparison that is not finished."""
    labels = labels_of([config for _, config, _ in found])
    groups = []
    for label in dict.fromkeys(labels):
        own = [each for each, name in zip(found, labels, strict=True) if name == label]
        groups.append(Group(label, own[0][1], _once([run for run, _, _ in own])))
    copies = len(found) - sum(len(group.runs) for group in groups)
    if copies:
        told = "1 run is left out: it is" if copies == 1 else f"{copies} runs are left out: they are"
        notes = [*notes, f"{told} there more than once, with the same settings and seed."]
    benchmarks = dict.fromkeys(str(config.get("benchmark")) for _, config, _ in found)
    kind = "run" if len(found) - copies == 1 else "runs"
    study = Study(kind, ", ".join(benchmarks), groups, versions=_versions([v for _, _, v in found]), notes=notes)
    return _with_commands(study, path, None)


def _once(runs: Sequence[Run]) -> list[Run]:
    """One run a seed, in their order; of copies one that was judged against a reference, if there is one."""
    first: dict[int, Run] = {}
    for run in sorted(runs, key=lambda run: run.metrics.get("intransigence") is None):
        first.setdefault(run.seed, run)
    return [first[seed] for seed in sorted(first)]


def _of_summary(file: Path, summary: StoredSummary, found: Sequence[Found], notes: Sequence[str]) -> Study:
    groups = [_group(row, found) for row in summary.rows]
    tuning = summary.kind == "tuning"
    if summary.searches:
        groups.append(_searched(summary))
    if tuning:
        groups = [replace(group, label=_signed(group.label)) for group in groups]
    benchmarks = dict.fromkeys(str(group.config.get("benchmark")) for group in groups if group.config)
    study = Study(
        summary.kind,
        summary.title or ", ".join(benchmarks),
        groups,
        against=_signed(summary.best) if tuning and summary.best else summary.against,
        best=_signed(summary.best) if summary.best else None,
        metric=summary.metric,
        source=summary.source,
        versions=summary.versions or _versions([versions for _, _, versions in found]),
        notes=[*notes, *summary.protocol],
        wall_seconds=summary.wall_seconds,
        searches=tuple(summary.searches.values()),
    )
    return _with_commands(study, file, summary)


def _searched(summary: StoredSummary) -> Group:
    """λ looked for while the stream came: what each seed was at at the end, on held-out data.

    That is no run under the λ that is chosen, which lies between those of several seeds or tasks.
    """
    runs = []
    for seed, search in sorted(summary.searches.items()):
        matrix = search.accuracy_matrix
        found: dict[str, float | None] = {}
        if matrix:
            try:
                found = AccuracyMatrix.from_rows(matrix).summary()
            except (ValueError, TypeError):
                matrix = None
        runs.append(Run(seed, {name: found.get(name) for name in NAMES}, search.seconds, matrix))
    searches = list(summary.searches.values())
    stepwise = any(search.plasticity for search in searches)
    label = "λ as found for each task" if stepwise else "each seed's λ in front"
    return Group(label, _without_strength(searches[0].config), runs)


def _without_strength(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without a λ, where there is not one for all that was done."""
    return nested({key: value for key, value in flat(config).items() if not is_strength(key)})


def _group(row: StoredRow, found: Sequence[Found]) -> Group:
    """A stored row, with whatever its runs keep besides."""
    settings = _but_seed(row.config or {})
    own = {run.seed: run for run, config, _ in found if _but_seed(config) == settings}
    runs = []
    for seed, figures in sorted(row.seeds.items()):
        kept = own.get(seed)
        metrics = {name: figures.get(name) for name in NAMES}
        seconds = figures.get("seconds") or 0.0
        runs.append(Run(seed, metrics, seconds, *((kept.matrix, kept.record, kept.folder) if kept else ())))
    return Group(
        row.label, row.config or {}, runs, row.errors,
        {name: (figure.value, figure.deviation) for name, figure in row.published.items() if name in NAMES},
        {name: Difference(**difference.model_dump()) for name, difference in row.differences.items() if name in NAMES},
        row.tuned,
    )  # fmt: skip


def _signed(label: str) -> str:
    """``rwalk.ewc_lambda=1`` as readers know it, ``λ=1``."""
    return ", ".join(f"{readable(key)}{equals}{value}" for key, equals, value in (
        part.partition("=") for part in label.split(", ")
    ))  # fmt: skip


def _but_seed(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "seed"}


def _with_commands(study: Study, path: Path, summary: StoredSummary | None) -> Study:
    return replace(study, commands=commands_of(study, path, summary))


def _versions(found: Sequence[dict[str, str]]) -> dict[str, str]:
    """Of each package all versions that occur."""
    names = dict.fromkeys(name for versions in found for name in versions)
    return {name: ", ".join(dict.fromkeys(v[name] for v in found if name in v)) for name in names}
