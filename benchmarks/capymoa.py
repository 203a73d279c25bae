"""CapyMOA's RWalk beside rwalk, in a process of their own.

Importing CapyMOA starts a Java machine in the process. Beside it torch was seen to crash now and then, so that nothing
else is measured there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from benchmarks.cases import CASES, OPTIMIZERS, Batch
from benchmarks.peers import FIRST_TASK, why_not
from benchmarks.subjects import attached, check_finite, past_first_task, plain_loop
from benchmarks.timing import Rounds, Run, interleave, visit

__all__ = ["CAPYMOA", "capymoa_loop", "capymoa_rounds", "main"]

CAPYMOA = "CapyMOA RWalk"
ROOT = Path(__file__).parents[1]


def capymoa_rounds(case: str, optimizer: str, **options: Any) -> Rounds | str:
    """Measure in another process.

    Args:
        case: Name of a case.
        optimizer: Name of an optimizer.
        options: Of ``interleave``.

    Returns:
        Rounds with the variants ``bare``, ``auto`` and ``CapyMOA RWalk``, or why there are none.
    """
    if find_spec("capymoa") is None:
        return "CapyMOA is not measured: it is not installed (pip install capymoa; it needs Java)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "benchmarks.capymoa", case, optimizer, json.dumps(options)]
    with tempfile.TemporaryDirectory() as folder:  # where Java leaves its report of a crash
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"CapyMOA is not measured on {case}: {last if done.returncode > 0 else 'its process crashed'}"
    return Rounds(json.loads(done.stdout.splitlines()[-1]))


def capymoa_loop(model: nn.Module, optimizer: Optimizer, batches: Sequence[Batch]) -> Run:
    """Steps of CapyMOA's ``RWalk``, after a first task."""
    from capymoa.ocl.evaluation.events import TrainTaskBegin
    from capymoa.ocl.events import Dispatcher
    from capymoa.ocl.strategy import RWalk

    learner = RWalk(None, model, optimizer, lambda_=0.1)  # the schema describes data for prediction, which is not used
    events = Dispatcher()
    learner.attach_with(events)
    stream = cycle(batches)

    def run(steps: int) -> None:
        for x, y in islice(stream, steps):
            learner.batch_train(x, y)

    events.notify(TrainTaskBegin(0, 0))
    run(FIRST_TASK)
    events.notify(TrainTaskBegin(1, FIRST_TASK))
    return run


def main(name: str, optimizer_name: str, options: str) -> int:
    """Measure in this process and print the rounds as JSON."""
    reason = why_not("capymoa")
    if reason is not None:
        print(reason, file=sys.stderr)
        return 1
    torch.manual_seed(0)
    case = next(case for case in CASES if case.name == name)
    model = case.build()
    optimizer = OPTIMIZERS[optimizer_name](model)
    batches = case.batches()
    plain = plain_loop(model, optimizer, batches)
    rwalk, _ = past_first_task(model, optimizer, plain)
    steps, lead_in = (1, 0) if case.singly else (case.steps, 1)
    bare = visit(plain, steps, lead_in)
    theirs = visit(capymoa_loop(model, optimizer, batches), steps, lead_in)
    turns = {"bare": bare, "auto": attached(rwalk, bare, steps), CAPYMOA: theirs}
    rounds = interleave(turns, **json.loads(options))
    check_finite(model)
    print(json.dumps(rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
