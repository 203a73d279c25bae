"""Memory that a regulariser keeps, at rest and at the worst moment of a step, in float32 copies of the network."""

from __future__ import annotations

import statistics
from typing import Any

import psutil
import torch
from torch import nn
from torch.optim import Optimizer

from benchmarks.cases import OPTIMIZERS, Batch
from benchmarks.command import Result, progress, run
from benchmarks.models import mlp, size
from benchmarks.peers import avalanche_loop, why_not
from benchmarks.subjects import plain_loop
from benchmarks.tensors import MemoryTrace, live_tensors, own_bytes
from benchmarks.traffic import FLOAT
from rwalk import RWalk, RWalkConfig

WINDOW = 10
STEPS = 10_000
SETTINGS: dict[str, dict[str, Any]] = {
    "fused": {"backend": "fused"},
    "eager": {"backend": "eager"},
    "fused_delta_t_1": {"backend": "fused", "delta_t": 1},
    "fused_bfloat16": {"backend": "fused", "state_dtype": "bfloat16"},
    "eager_bfloat16": {"backend": "eager", "state_dtype": "bfloat16"},
}


def measure(quick: bool) -> Result:
    """Count bytes a parameter that a regulariser keeps, and watch the memory of 10,000 steps."""
    result = Result({"model": "mlp 784-2048-2048-10", "optimizer": "SGD with momentum", "batch": 8})
    for name, settings in SETTINGS.items():
        progress(name)
        _ours(result, name, settings)
    reason = why_not("avalanche")
    if reason is None:
        progress("avalanche")
        _avalanche(result)
    else:
        result.note(reason)
    _long_run(result, STEPS // 10 if quick else STEPS)
    result.note("copies: bytes / (4 x parameters); parameters, gradients and the optimizer's state are not counted")
    result.note("at rest: alive between steps; at the peak: the most in a window of steps, less the most without it")
    return result


def _network() -> tuple[nn.Module, Optimizer, list[Batch]]:
    torch.manual_seed(0)
    model = mlp(784, 2048, 2048, 10)
    return model, OPTIMIZERS["sgd"](model), [(torch.randn(8, 784), torch.randint(0, 10, (8,))) for _ in range(4)]


def _ours(result: Result, name: str, settings: dict[str, Any]) -> None:
    kept = {}
    with MemoryTrace() as trace:
        model, optimizer, batches = _network()
        run_steps = plain_loop(model, optimizer, batches)
        run_steps(2)
        already = _beside(model, optimizer, batches)
        with trace.mark("bare"):
            run_steps(WINDOW + 1)
        rwalk = RWalk(model, optimizer, RWalkConfig(**settings))
        for moment in ("first", "later"):
            run_steps(WINDOW + 1)
            kept[moment] = _beside(model, optimizer, batches) - already
            with trace.mark(moment):
                run_steps(WINDOW + 1)
            rwalk.consolidate()
    for moment, at_rest in kept.items():
        _write_down(result, name, moment, size(model), at_rest, trace.peaks[moment] - trace.peaks["bare"])


def _avalanche(result: Result) -> None:
    peaks, kept = [], 0
    for regularised in (False, True):
        with MemoryTrace() as trace:
            model, optimizer, batches = _network()
            already = _beside(model, optimizer, batches)
            run_steps = avalanche_loop(model, optimizer, batches, regularised=regularised)
            run_steps(WINDOW + 1)
            kept = _beside(model, optimizer, batches) - already
            with trace.mark("later"):
                run_steps(WINDOW + 1)
        peaks.append(trace.peaks["later"])
        parameters = size(model)
        del model, optimizer, run_steps
    _write_down(result, "avalanche", "later", parameters, kept, peaks[1] - peaks[0])


def _beside(model: nn.Module, optimizer: Optimizer, batches: list[Batch]) -> int:
    return own_bytes(model, optimizer, [tensor for batch in batches for tensor in batch])


def _write_down(result: Result, variant: str, moment: str, parameters: int, kept: int, peak: int) -> None:
    copies = {"copies_at_rest": kept / parameters / FLOAT, "copies_at_peak": peak / parameters / FLOAT}
    row = {"variant": variant, "experience": moment, "parameters": parameters}
    result.rows.append({**row, "bytes_a_parameter": kept / parameters, **copies})
    result.ratios[f"{variant}.{moment}"], result.ratios[f"{variant}.{moment}_peak"] = copies.values()


def _long_run(result: Result, steps: int) -> None:
    """Steps of a small network, with the process's memory read ten times on the way."""
    progress(f"{steps} steps")
    model = mlp(64, 64, 10)
    optimizer = OPTIMIZERS["sgd"](model)
    rwalk = RWalk(model, optimizer, RWalkConfig())
    run_steps = plain_loop(model, optimizer, [(torch.randn(8, 64), torch.randint(0, 10, (8,))) for _ in range(4)])
    run_steps(steps // 10)
    rwalk.consolidate()
    run_steps(steps // 10)
    process, counts, memory = psutil.Process(), [], []
    for index in range(11):
        if index:
            run_steps(steps // 10)
        counts.append(len(live_tensors()))
        memory.append(process.memory_info().rss)
    done = [index * steps // 10 for index in range(11)]
    slope = statistics.linear_regression(done, memory).slope
    result.ratios |= {"long_run.bytes_a_step": slope, "long_run.tensors_gained": float(counts[-1] - counts[0])}
    result.settings |= {"long_run_steps": steps, "rss_mib": [round(value / 2**20, 2) for value in memory]}


if __name__ == "__main__":
    run("memory", measure)
