"""What a sweep costs beside its runs, and what is left of it when a worker is killed: local processes, Ray, Dask.

Run it: python -m benchmarks.sweeps --json benchmarks/results/sweeps.json
It needs ray and dask[distributed]; about 25 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rwalk.experiments import RunSpec, run_all
from rwalk.experiments.backends import cluster
from rwalk.experiments.holding import LOCK
from rwalk.experiments.index import RunIndex
from rwalk.experiments.results import RESULT, versions

__all__ = ["main", "swept"]

#: Runs of a fraction of a second: the shorter they are, the more what is around them counts.
SPECS = {
    f"λ {strength}": RunSpec(
        benchmark="split-digits", method="rwalk", rwalk={"ewc_lambda": strength}, hidden=(64,), epochs=2, exemplars=1
    )
    for strength in (0.1, 1.0, 10.0, 100.0)
}


def swept(backend: str, runs: int, jobs: int, *, kill: bool) -> dict[str, Any]:
    """One sweep, and the same again.

    Args:
        backend: ``local``, ``ray`` or ``dask``.
        runs: How many, a multiple of the number of specs.
        jobs: Workers.
        kill: Whether to kill one worker when a third of the runs are there.

    Returns:
        Counts, seconds, and ``orchestration``: the share of the workers' time, from the first run handed out to the
        last outcome, that was no run; ``orchestration_once_started``: from the first outcome on, without the time in
        which workers begin and import.
    """
    with tempfile.TemporaryDirectory() as place, RunIndex(Path(place)) as index:
        folder, killed = Path(place) / "runs", list[int]()
        began = time.perf_counter()
        with cluster(backend, jobs=jobs) as workers:
            ready = time.perf_counter()
            if kill:
                threading.Thread(target=_kill_one, args=(folder, runs // 3, killed), daemon=True).start()
            outcomes = []
            seeds = range(runs // len(SPECS))
            first = 0.0
            for outcome in run_all(SPECS, seeds, jobs=jobs, folder=folder, workers=workers):
                outcomes.append(outcome)
                first = first or time.perf_counter()
                index.record([outcome])
            ended = time.perf_counter()
            again = list(run_all(SPECS, seeds, jobs=jobs, folder=folder, workers=workers))
            resumed = time.perf_counter() - ended
        seconds = [outcome.result.seconds for outcome in outcomes if outcome.result is not None]
        return {
            "backend": backend,
            "workers": jobs,
            "runs": runs,
            "killed": len(killed),
            "present": len(list(folder.rglob(RESULT))),
            "told": len(outcomes),
            "told_once": len({(outcome.label, outcome.seed) for outcome in outcomes}),
            "failed": sum(outcome.error is not None for outcome in outcomes),
            "indexed": len(index.rows()),
            "used_again": sum(outcome.reused for outcome in again),
            "start_seconds": round(ready - began, 2),
            "wall_seconds": round(ended - ready, 2),
            "run_seconds": round(sum(seconds), 2),
            "mean_run_seconds": round(sum(seconds) / len(seconds), 3),
            "orchestration": round(1 - sum(seconds) / (jobs * (ended - ready)), 4),
            "orchestration_once_started": round(1 - sum(seconds[jobs:]) / (jobs * (ended - first)), 4),
            "resume_seconds": round(resumed, 2),
        }


def _kill_one(folder: Path, after: int, killed: list[int]) -> None:
    """Kill one process that carries out a run, once so many are there."""
    while len(list(folder.rglob(RESULT))) < after:
        time.sleep(0.05)
    while not killed:
        for lock in folder.rglob(LOCK):
            words = lock.read_text().split() if lock.exists() else []
            if len(words) > 1 and words[0] == "process" and int(words[1]) != os.getpid():
                os.kill(int(words[1]), signal.SIGKILL)
                killed.append(int(words[1]))
                break


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--backends", nargs="+", default=["local", "ray", "dask"])
    parser.add_argument("--json", type=Path, help="add to this file what was measured")
    chosen = parser.parse_args(arguments)
    for backend in chosen.backends:
        found = swept(backend, chosen.runs, chosen.jobs, kill=backend != "local")
        print(json.dumps(found))
        sys.stdout.flush()
        if chosen.json:
            before = json.loads(chosen.json.read_text()) if chosen.json.exists() else {"rows": []}
            rows = [row for row in before["rows"] if row["backend"] != backend]
            content = {"versions": versions(), "cores": os.cpu_count(), "rows": [*rows, found]}
            chosen.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
