"""The commands that run a study again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rwalk.experiments import RunSpec
from rwalk.experiments.loading import flat, nested
from rwalk.report.stored import StoredSummary
from rwalk.report.study import Study

__all__ = ["commands_of", "run_command"]

MOST = 20  # commands on a page


def commands_of(study: Study, path: Path, summary: StoredSummary | None) -> list[str]:
    """A command for the whole, or one for each label.

    Args:
        study: What was found.
        path: Where; the folder is named as ``--out``.
        summary: What was stored of it.
    """
    folder = path if path.is_dir() else path.parent
    if summary is not None and summary.table is not None:
        quick = ["--quick"] if summary.quick else []
        seeds = ["--seeds", str(len(summary.seeds))] if summary.seeds and not quick else []
        return [shlex.join(["rwalk", "reproduce", summary.table, *quick, *seeds, "--out", str(folder)])]
    if summary is not None and summary.sweep is not None:
        return [_planned("sweep", "plan.yaml", json.dumps(summary.sweep, indent=1, ensure_ascii=False), folder)]
    if summary is not None and summary.best is not None and (tuning := _tune(study, folder)):
        return [tuning]
    if len(study.groups) > 1 and len(study.groups) <= MOST and (comparing := _compare(study, folder)):
        return [comparing]
    commands = []
    for group in list(study.groups)[:MOST]:
        run = group.runs[0] if group.runs else None
        place = run.folder if run is not None and run.folder is not None else folder
        if command := run_command(group.config, place, intransigence=bool(group.values("intransigence"))):
            commands.append(command)
    return commands


def _compare(study: Study, folder: Path) -> str | None:
    """``rwalk compare`` with a plan of its own: JSON, which YAML reads."""
    runs: dict[str, Any] = {}
    for group in study.groups:
        settings = _own_settings(group.config)
        if settings is None:
            return None
        named = {"benchmark": group.config["benchmark"], "method": group.config["method"]}
        runs[group.label] = named | nested({key: value for key, value in settings.items() if key != "seed"})
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
    return _planned("compare", "--spec plan.yaml", lines, folder)


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


def _tune(study: Study, folder: Path) -> str | None:
    """``rwalk tune``, the grid being what differs."""
    grid = study.differing()
    first = study.groups[0] if study.groups else None
    settings = None if first is None else _own_settings(first.config)
    if first is None or settings is None or not (grid or study.searches):
        return None
    start = ["rwalk", "tune", "--benchmark", str(first.config["benchmark"]), "--method", str(first.config["method"])]
    for key, values in grid.items():
        listed = ",".join(dict.fromkeys(map(_value, values)))
        start += ["--grid", f"{key}={listed}"]
    shared = {key: value for key, value in settings.items() if key not in grid and key != "seed"}
    return shlex.join([*start, *_set(shared), "--seeds", str(max(1, study.seeds)), "--out", str(folder)])


def _set(settings: Mapping[str, Any]) -> list[str]:
    return [part for key, value in settings.items() for part in ("--set", f"{key}={_value(value)}")]


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
