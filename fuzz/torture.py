"""Runs that are killed at random moments, resumed until they end, and compared with runs that never were.

``python -m fuzz.torture --kills 100``: SIGKILL, SIGTERM and SIGINT, to ``rwalk run`` and ``rwalk compare``, on several
benchmarks, with and without replay. Each run that was killed must end with the result (but for the seconds that it took
and the checksum over them) and, of ``run``, the weights of the one that was not, bit for bit; and five seconds after a
kill no process of it may be left. Children are forked from a process that has imported rwalk, so that kills meet runs
and not imports.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

__all__ = ["Torture", "main"]

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SHORT = ["--set", "n_experiences=3", "--set", "hidden=[16]", "--set", "batch_size=32", "--checkpoint-every", "7"]
REPLAY = ["--exemplars", "3", "--set", "replay_batch_size=8"]

#: What is run, by name.
RUNS: dict[str, list[str]] = {
    "split, rwalk, replay": ["split-digits", "rwalk", "--epochs", "6", "--delta-t", "7", *REPLAY],
    "permuted, rwalk": ["permuted-digits", "rwalk", "--epochs", "3", "--delta-t", "10"],
    "blurry, lwf, herding": ["blurry-digits", "lwf", "--epochs", "3", *REPLAY, "--sampler", "mean-of-features"],
    "split, two heads, balanced replay": [
        *("split-digits", "pi", "--epochs", "6", "--heads", "multi", "--task-labels", "--exemplars", "3"),
        *("--set", "replay_batch_size=balanced"),
    ],
    "split, joint": ["split-digits", "joint", "--epochs", "3", "--heads", "growing"],
}
COMPARE = ["--benchmark", "split-digits", "--methods", "rwalk,mas", "--exemplars", "2", "--seeds", "2", "--jobs", "2"]
COMPARE += ["--no-intransigence", "--set", "epochs=6", *SHORT]


class Torture:
    """Carries out kills and keeps count.

    Args:
        folder: Where runs go.
        seed: Of the moments.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.random = folder, Random(seed)
        self.kills: Counter[str] = Counter()
        self.findings: list[str] = []
        self.seconds: dict[str, float] = {}
        self.wanted: dict[str, Any] = {}
        self.resumed = 0

    def kill(self, name: str, times: int) -> None:
        """Kill a run so many times, wherever it is then, and let it end."""
        if name not in self.wanted:
            began = time.monotonic()
            self._expect(self._ended(self._start(name, self._place(name, "whole"))), {0}, f"{name}, never killed")
            self.seconds[name] = time.monotonic() - began
            self.wanted[name] = self._outcome(self._place(name, "whole"))
        place = self._place(name, f"{sum(self.kills.values())}")
        for _ in range(times):
            number, child = self.random.choice(SIGNALS), self._start(name, place)
            time.sleep(self.random.random() * self.seconds[name])
            self.resumed += any(place.rglob("checkpoint-*"))
            os.kill(child, number)
            self.kills[f"{'compare' if name == 'compare' else 'run'}, {number.name}"] += 1
            since = time.monotonic()
            status = self._ended(child)
            self._expect(status, {0, -number if number == signal.SIGKILL else 128 + number}, f"{name}, {number.name}")
            while _of_session(child) and time.monotonic() - since < 5.0:
                time.sleep(0.1)
            left = _of_session(child)
            if left:
                self.findings.append(f"{name}, {number.name}: {len(left)} processes are left after 5 s")
                for process in left:
                    os.kill(process, signal.SIGKILL)
        self._expect(self._ended(self._start(name, place)), {0}, f"{name}, after {times} kills")
        if self._outcome(place) != self.wanted[name]:
            self.findings.append(f"{name}: other results in {place} than without {times} kills")

    def _place(self, name: str, which: str) -> Path:
        return self.folder / name.replace(", ", "-").replace(" ", "-") / which

    def _start(self, name: str, place: Path) -> int:
        """A process, in a session of its own."""
        if name == "compare":
            arguments = ["compare", *COMPARE]
        else:
            benchmark, method, *more = RUNS[name]
            arguments = ["run", "--benchmark", benchmark, "--method", method, *more, *SHORT, "--resume"]
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        child = os.fork()
        if child:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            return child
        try:
            from rwalk.cli import main as command
            from rwalk.cli.signals import at_once

            with at_once():  # as while a process imports
                signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
                self._child(arguments, place, command)
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code if isinstance(end.code, int) else bool(end.code))
        except BaseException:
            traceback.print_exc()
            os._exit(99)
        os._exit(0)

    def _child(self, arguments: list[str], place: Path, command: Callable[[], None]) -> None:
        os.setsid()
        place.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(place.parent / f"{place.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        sys.argv = ["rwalk", *arguments, "--out", str(place)]
        command()

    def _ended(self, child: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _expect(self, status: int, wanted: set[int], what: str) -> None:
        if status not in wanted:
            self.findings.append(f"{what}: status {status}")

    def _outcome(self, place: Path) -> dict[str, Any]:
        """Results and weights of all runs in a folder, without what tells of time."""
        found: dict[str, Any] = {}
        for file in sorted(place.rglob("result.json")):
            content = json.loads(file.read_text(encoding="utf-8"))
            found[str(file.relative_to(place))] = {**content, "seconds": None, "checksum": None}
        for file in sorted(place.rglob("weights.safetensors")):
            found[str(file.relative_to(place))] = hashlib.sha256(file.read_bytes()).hexdigest()
        others = [path.name for path in place.rglob("*") if path.is_file()]
        rest = set(others) - {"result.json", "weights.safetensors", "comparison.json", "plane.svg", "index.sqlite"}
        if rest or not found:
            self.findings.append(f"{place} holds {sorted(rest)} beside results")
        return found


def _of_session(session: int) -> list[int]:
    """Processes of a session that are alive."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def main() -> int:
    """Kill, resume, compare; the exit status is 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.torture", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, metavar="N")
    parser.add_argument("--compare", type=float, default=0.2, help="which share of them hits rwalk compare")
    parser.add_argument("--run", choices=RUNS, help="only this one of rwalk run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to store figures")
    chosen = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # before anything is computed: a pool of threads does not outlive a fork
    import rwalk.cli.commands  # noqa: F401 - children have it then
    from rwalk.streams import benchmark

    benchmark("split-digits")
    began, names = time.monotonic(), [chosen.run] if chosen.run else list(RUNS)
    with tempfile.TemporaryDirectory() as folder:
        torture = Torture(Path(folder), chosen.seed)
        to_compare = round(chosen.kills * chosen.compare)
        while sum(torture.kills.values()) < chosen.kills:
            done = sum(torture.kills.values())
            name = "compare" if done >= chosen.kills - to_compare else names[torture.random.randrange(len(names))]
            torture.kill(name, min(torture.random.choice((1, 1, 2, 3)), chosen.kills - done))
            print(f"{sum(torture.kills.values())} kills, {len(torture.findings)} findings", flush=True)
            if torture.findings:
                print(f"  {torture.findings[-1]}", flush=True)
    found = {
        "kills": dict(sorted(torture.kills.items())),
        "in all": sum(torture.kills.values()),
        "with a checkpoint to go on from": torture.resumed,
        "benchmarks": sorted(torture.seconds),
        "findings": torture.findings,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(found, indent=2))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 1 if torture.findings else 0


if __name__ == "__main__":
    sys.exit(main())
