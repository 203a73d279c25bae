"""Jobs of several processes, each launched once for all tests that look at what it found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from processes import worker

TESTS = Path(__file__).parents[1]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1")
ACCELERATE = (  # `--multi_gpu` starts several processes on a machine without a GPU too; `--cpu` starts one
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"),
    *("--main_process_port=0", "--mixed_precision=no", "--dynamo_backend=no"),
)


def run(*arguments: str | Path, timeout: float = 120.0, **environment: str) -> subprocess.CompletedProcess[str]:
    """``python arguments...``; when it takes longer than ``timeout`` seconds, its processes end and the test fails."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    surroundings = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    command = [sys.executable, *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=surroundings, text=True, start_new_session=True, **pipes) as job:
        try:
            output, errors = job.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            pytest.fail(f"{command} still ran after {timeout} s:\n{job.communicate()[1]}")
    return subprocess.CompletedProcess(command, job.returncode, output, errors)


def torchrun(processes: int, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """A script in so many processes."""
    return run(*TORCHRUN, f"--nproc-per-node={processes}", *arguments, **options)


class Job:
    """Scenarios in so many processes, run on first use; the test session's processes share what they found.

    Args:
        factory: pytest's ``tmp_path_factory``.
        processes: How many.
        scenarios: Functions of modules in this folder, ``module.function``; each is given the job's folder.
        first: What to do before it is launched.
        name: Tells jobs of as many processes apart.
    """

    def __init__(
        self,
        factory: pytest.TempPathFactory,
        processes: int,
        *scenarios: str,
        first: Callable[[], Any],
        name: str = "processes",
    ) -> None:
        self.processes, self.scenarios = processes, scenarios
        self.folder = shared_folder(factory, f"{processes}-{name}")
        with FileLock(self.folder / "lock"):
            outcome = self.folder / "outcome"
            if not outcome.exists():
                first()
                done = torchrun(processes, worker.__file__, self.folder, *scenarios, timeout=240.0)
                outcome.write_text(done.stderr if done.returncode else "")
            if outcome.read_text():
                pytest.fail(f"a scenario failed:\n{outcome.read_text()}")

    def found(self, scenario: str) -> list[Any]:
        """What each process found in a scenario; the test is skipped where that was not run."""
        if scenario not in self.scenarios:
            pytest.skip(f"{scenario} is not run with torch {torch.__version__}")
        return [torch.load(self.folder / f"{scenario}-{rank}.pt") for rank in range(self.processes)]


def shared_folder(factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder that all processes of a test session have in common."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    return folder
