"""The commands that run a study again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rwalk.experiments import RunSpec
from rwalk.experiments.loading import flat, nested
from rwalk.experiments.reproduce import command_of
from rwalk.experiments.yaml_files import plain_yaml
from rwalk.report.stored import StoredSummary
from rwalk.report.study import Study, shown

__all__ = ["commands_of", "run_command"]

MOST = 500  # labels of a plan
FEW = 5  # that are named
#: Options of ``rwalk tune`` by the name under which what they asked for is stored.
ASKED_FOR = {
    "keep": "keep", "start": "start", "end": "end", "decay": "factor", "tolerance": "tolerance", "trials": "trials",
}  # fmt: skip


def commands_of(study: Study, path: Path, summary: StoredSummary | None) -> list[str]:
    """The command that does it all again, if what is stored tells enough.

    Args:
        study: What was found.
        path: Where; the folder is named as ``--out``.
        summary: What was stored of it.
    """
    folder = path if path.is_dir() else path.parent
    if summary is not None and summary.table is not None:
        labels = [row.label for row in summary.rows]
        words = command_of(summary.table, labels, summary.seeds, quick=summary.quick)
        return [shlex.join([*words, "--out", str(folder)])]
    if summary is not None and summary.sweep is not None:
        return [_planned("sweep", "plan.yaml", json.dumps(summary.sweep, indent=1, ensure_ascii=False), folder)]
    if summary is not None and summary.best is not None and (tuning := _tune(study, summary, folder)):
        return [tuning]
    if study.kind == "run":
        (group,) = study.groups
        place = group.runs[0].folder or folder
        command = run_command(group.config, place, intransigence=bool(group.values("intransigence")))
    else:
        command = _compare(study, folder)
    return [] if command is None else [command]


def _compare(study: Study, folder: Path) -> str | None:
    """``rwalk compare`` with a plan of its own: JSON, which YAML reads."""
    runs: dict[str, Any] = {}
    left = []
    for group in study.groups:
        settings = _own_settings(group.config)
        if settings is None or len(runs) == MOST:
            left.append(group.label)
            continue
        named = {"benchmark": group.config["benchmark"], "method": group.config["method"]}
        runs[group.label] = named | nested({key: value for key, value in settings.items() if key != "seed"})
    if not runs:
        return None
    seeds = sorted({run.seed for group in study.groups for run in group.runs}) or [0]
    plan = {"seeds": seeds, "intransigence": "intransigence" in study.metrics, "runs": runs}
    plan |= {"against": study.against} if study.against in runs else {}
    each = ",\n".join(
        f"  {json.dumps(label, ensure_ascii=False)}: {json.dumps(of_label, ensure_ascii=False)}"
        for label, of_label in runs.items()
    )
    others = ",\n".join(
        f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in plan.items() if key != "runs"
    )
    lines = f'{{\n{others},\n "runs": {{\n{each}\n }}\n}}'
    return _remark(left) + _planned("compare", "--spec plan.yaml", lines, folder)


def _remark(left: Sequence[str]) -> str:
    """What the shell reads over: labels that are not in a plan."""
    if not left:
        return ""
    named = ", ".join(shown(label, 60) for label in left[:FEW]) + (f" and {len(left) - FEW} more" if left[FEW:] else "")
    return f"# Not in this plan, as no run of it tells its settings or there are too many: {named}\n"


def _planned(command: str, plan: str, content: str, folder: Path) -> str:
    """A command that reads a plan, which is written first."""
    return f"cat > plan.yaml <<'END'\n{content}\nEND\nrwalk {command} {plan} --out {shlex.quote(str(folder))}"


def run_command(config: Mapping[str, Any], folder: Path, *, intransigence: bool = False) -> str | None:
    """``rwalk run`` with the settings that are not the benchmark's and the method's own; None if it is no such run."""
    settings = _own_settings(config)
    if settings is None:
        return None
    start = ["rwalk", "run", "--benchmark", str(config["benchmark"]), "--method", str(config["method"])]
    also = ["--intransigence"] if intransigence else []
    return shlex.join([*start, *_set(settings), *also, "--out", str(folder)])


def _own_settings(config: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        usual = RunSpec(benchmark=config["benchmark"], method=config["method"]).canonical()
    except (ValueError, TypeError, KeyError):
        return None
    ours, theirs = flat(config), flat(json.loads(json.dumps(usual)))
    return {key: value for key, value in ours.items() if key not in theirs or theirs[key] != value}


def _tune(study: Study, summary: StoredSummary, folder: Path) -> str | None:
    """``rwalk tune`` as it was asked for; of files that do not tell, what their content lets tell."""
    found = next(iter(summary.searches.values()), None)
    plan = summary.plan or ({} if found is None else found.search)
    base = plan.get("base") or _base_of(study)
    if not isinstance(base, Mapping) or not {"benchmark", "method"} <= set(base):
        return None
    grid = plan.get("grid")
    if not isinstance(grid, list) and found is None:
        differing = study.differing()
        if summary.search == "optuna" or not differing:  # the ranges of the former are not known
            return None
        grid = [f"{key}={','.join(dict.fromkeys(map(_value, values)))}" for key, values in differing.items()]
        base = {key: value for key, value in flat(base).items() if key not in differing}
    words = ["rwalk", "tune", "--benchmark", str(base["benchmark"]), "--method", str(base["method"])]
    words += _set({key: value for key, value in flat(base).items() if key not in ("benchmark", "method", "seed")})
    words += ["--search", summary.search] if summary.search else []
    words += [word for entry in (grid if isinstance(grid, list) else ()) for word in ("--grid", str(entry))]
    for option, key in ASKED_FOR.items():
        if key in plan:
            words += [f"--{option}", _value(plan[key])]
    if summary.metric not in (None, "average_accuracy"):
        words += ["--metric", str(summary.metric)]
    seeds = len(summary.seeds) or max(1, study.seeds)
    return shlex.join([*words, "--seeds", str(seeds), "--out", str(folder)])


def _base_of(study: Study) -> dict[str, Any] | None:
    """What the first label was run with, as far as it is not usual."""
    config = study.groups[0].config if study.groups else {}
    settings = _own_settings(config)
    return None if settings is None else {"benchmark": config["benchmark"], "method": config["method"], **settings}


def _set(settings: Mapping[str, Any]) -> list[str]:
    return [part for key, value in settings.items() for part in ("--set", f"{key}={_value(value)}")]


def _value(value: Any) -> str:
    """As YAML reads it back."""
    try:
        plain = isinstance(value, str) and plain_yaml(value) == value
    except ValueError:
        plain = False
    return str(value) if plain else json.dumps(value)
