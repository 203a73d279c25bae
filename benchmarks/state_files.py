"""Saving and loading a state, beside torch.save and torch.load of the same tensors: time, and memory at the peak."""

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from benchmarks.command import Result, progress, run
from rwalk import RWalk, RWalkConfig
from rwalk.core.files import load_state

FLOAT = 4
LAYERS = 8
ROUNDS = 3
PAIRS = (
    ("save", "torch.save"),
    ("save", "torch.save, synced"),
    ("load", "torch.load"),
    ("load_state", "torch.load"),
)


def measure(quick: bool) -> Result:
    """Save and load states of 25 and 100 million parameters, in turns with torch, and compare times and peaks."""
    result = Result({"layers": LAYERS, "rounds": 2 if quick else ROUNDS, "state": "after a task, in an open window"})
    for millions in (1,) if quick else (25, 100):
        with tempfile.TemporaryDirectory() as folder:
            _measure(result, millions, Path(folder), 2 if quick else ROUNDS)
    result.note("seconds: medians; ratios: medians of the rounds' own, torch and rwalk one after the other")
    result.note("save brings the file to the disk before it returns; torch.save alone does not: 'synced' adds an fsync")
    result.note("copies at the peak: resident memory beyond what stays, in float32 copies of the parameters")
    return result


def _measure(result: Result, millions: int, folder: Path, rounds: int) -> None:
    model, rwalk = _learned(millions)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    ours, compact = folder / "ours", folder / "compact"
    rwalk.save(ours)
    rwalk.save(compact, compact=True)

    def load() -> RWalk:
        return RWalk.load(ours, model, torch.optim.SGD(model.parameters(), lr=0.1), attach=False)

    variants = {
        **_by_torch(rwalk.state_dict(), folder / "theirs"),
        "save": lambda: rwalk.save(ours),
        "load": load,
        "load_state": lambda: load_state(ours),
    }
    seconds = _in_turns(variants, rounds, f"{millions} M parameters")
    variants.clear()
    size = ours.stat().st_size
    for name, found in seconds.items():
        middle = statistics.median(found)
        speed = size / middle / 1e9
        result.rows.append({"parameters": parameters, "what": name, "seconds": middle, "GB_a_second": speed})
    for name, other in PAIRS:
        pairs = zip(seconds[name], seconds[other], strict=True)
        key = f"{millions}M.{name}_by_{other.replace(', ', '_')}"
        result.ratios[key] = statistics.median(mine / theirs for mine, theirs in pairs)
    copy = FLOAT * parameters
    extra, stays = _peak(load)
    result.ratios |= {
        f"{millions}M.copies_at_peak_of_save": _peak(lambda: rwalk.save(ours))[0] / copy,
        f"{millions}M.copies_at_peak_of_load": (extra - stays) / copy,
        f"{millions}M.copies_that_stay_of_load": stays / copy,
        f"{millions}M.bytes_a_parameter": size / parameters,
        f"{millions}M.bytes_a_parameter_compact": compact.stat().st_size / parameters,
    }


def _by_torch(state: dict[str, Any], path: Path) -> dict[str, Callable[[], Any]]:
    """What torch does with the same tensors; ``synced``: the file is on the disk, as ours is."""

    def save_and_sync() -> None:
        torch.save(state, path)
        with path.open("rb+") as file:
            os.fsync(file.fileno())

    return {
        "torch.save": lambda: torch.save(state, path),
        "torch.save, synced": save_and_sync,
        "torch.load": lambda: torch.load(path),
    }


def _in_turns(variants: dict[str, Callable[[], Any]], rounds: int, what: str) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds):
        for name, act in variants.items():
            progress(f"{what}, round {turn + 1}, {name}")
            os.sync()  # nobody waits for what another has written
            began = time.perf_counter()
            kept = act()
            seconds[name].append(time.perf_counter() - began)
            del kept
            gc.collect()
    return seconds


def _learned(millions: int) -> tuple[nn.Module, RWalk]:
    torch.manual_seed(0)
    width = int((millions * 1e6 / LAYERS) ** 0.5)
    model = nn.Sequential(*[nn.Linear(width, width, bias=False) for _ in range(LAYERS)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    rwalk = RWalk(model, optimizer, RWalkConfig())

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        optimizer.zero_grad()

    step()
    step()
    rwalk.consolidate()
    step()
    rwalk.settle()
    return model, rwalk


def _peak(act: Callable[[], Any]) -> tuple[int, int]:
    """Bytes of resident memory that an act adds at its peak, and those that stay while its result is kept."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    before = psutil.Process().memory_info().rss
    kept = act()
    after = psutil.Process().memory_info().rss
    told = Path("/proc/self/status").read_text(encoding="ascii")
    high = int(next(line.split()[1] for line in told.splitlines() if line.startswith("VmHWM:"))) * 1024
    del kept
    return high - before, after - before


if __name__ == "__main__":
    run("state_files", measure)
