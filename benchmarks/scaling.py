"""Whether a step's cost grows as the parameters do, and what several processes send because of rwalk: nothing."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.bare_core import core, core_visit
from benchmarks.command import Result, progress, run
from benchmarks.models import size
from benchmarks.timing import Rounds, interleave

MILLION = 1_000_000
#: Sizes that take turns, in millions of parameters. The largest needs 13 GB and shares the memory with one other.
GROUPS: Sequence[tuple[int, ...]] = ((1, 10, 100), (30, 300))
SECONDS = 30.0
EVICTED = 32 * MILLION  # numbers: 128 MB, more than any cache holds


def measure(quick: bool) -> Result:
    """Time the core's step from 1 M to 300 M parameters, and count the bytes that two processes exchange."""
    result = Result({"delta_t": 10, "cache": "emptied before each step, as a forward and backward pass would"})
    for group in GROUPS[:1] if quick else GROUPS:
        for backend in ("fused", "eager"):
            if backend == "eager" and 300 in group:
                continue
            progress(f"{group} M, {backend}")
            _sizes(result, group, backend, 3.0 if quick else SECONDS)
            gc.collect()
    for processes in (1, 2):
        progress(f"{processes} processes")
        _distributed(result, processes, 1.0 if quick else 10.0)
    result.note("sizes: the core's part of a step alone; vs_size_before: growth of the time over growth of the size")
    result.note("processes: DDP over gloo, 11 steps and consolidate(); bytes that one hands to collective operations")
    return result


def _sizes(result: Result, group: Sequence[int], backend: str, budget: float) -> None:
    walks = {millions: core(millions * MILLION, backend=backend) for millions in group}
    evicted = torch.zeros(EVICTED)
    steps = {millions: 40 if millions == 1 else 10 for millions in group}
    turns = {f"{millions}m": core_visit(walks[millions], steps[millions], evicted) for millions in group}
    rounds = interleave(turns, budget=budget, at_least=3)
    for before, millions in zip((None, *group), group, strict=False):
        parameters = size(walks[millions].model)
        found = rounds.summary(lambda seconds, name=f"{millions}m": 1e3 * seconds[name])
        row: dict[str, Any] = {"parameters": parameters, "processes": 1, "variant": backend, "rounds": len(rounds)}
        row |= {"step_ms": found.median, "q1_ms": found.q1, "q3_ms": found.q3}
        row["ns_a_parameter"] = 1e6 * found.median / parameters
        if before is not None:
            growth = _growth(rounds, f"{before}m", f"{millions}m", size(walks[before].model) / parameters)
            row["vs_size_before"] = result.ratios[f"{backend}.{before}m_to_{millions}m"] = growth
        result.rows.append(row)


def _growth(rounds: Rounds, small: str, large: str, weight: float) -> float:
    return rounds.summary(lambda seconds: seconds[large] / seconds[small] * weight).median


def _distributed(result: Result, processes: int, budget: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "found.json")
        launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--local-addr=127.0.0.1"]
        command = [sys.executable, "-m", *launch, "-m", "benchmarks.communication", str(target), str(budget)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{processes} processes failed:\n{done.stderr}")
        found = json.loads(target.read_text(encoding="utf-8"))
    for variant, suffix in (("bare", ""), (f"rwalk {found['backend']}", "_with_rwalk")):
        row = {"parameters": found["parameters"], "processes": processes, "variant": f"DDP, {variant}"}
        row |= {"step_ms": found["rwalk_ms" if suffix else "bare_ms"]}
        row |= {"collectives": found[f"collectives{suffix}"], "bytes": found[f"bytes{suffix}"]}
        result.rows.append(row)
    name = f"processes_{processes}"
    result.ratios[f"{name}.bytes_added"] = float(found["bytes_with_rwalk"] - found["bytes"])
    result.ratios[f"{name}.collectives_added"] = float(found["collectives_with_rwalk"] - found["collectives"])


if __name__ == "__main__":
    run("scaling", measure)
