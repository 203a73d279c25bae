"""The step on a GPU: right, without a wait, and at what its memory allows."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import Result, progress, run
from benchmarks.gpu_turns import added, copy_bandwidth, language_model, peak_copies
from benchmarks.traffic import bytes_per_parameter
from rwalk import RWalkConfig

#: Parameters, and the width of the square layers that hold them.
SIZES = {"1m": (1_000_000, 512), "10m": (10_000_000, 1024), "25m": (25_000_000, 1024), "100m": (100_000_000, 4096),
         "1b": (1_000_000_000, 8192)}  # fmt: skip
TESTS = ("tests/core/test_device_kernels.py", "tests/core/test_gpu.py")
DELTA_T = 10
ROOT = Path(__file__).parents[1]


def measure(quick: bool, tests: bool = True, sizes: str = "", workers: str = "6") -> Result:
    """Run the tests that need a GPU, then time the core there against the bytes that it moves."""
    if not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA GPU: none is visible to torch")
    result = Result({"delta_t": DELTA_T, "device": torch.cuda.get_device_name(), "torch_cuda": torch.version.cuda})
    result.settings["triton"] = __import__("triton").__version__
    if tests:
        _tests(result, workers)
    bandwidth = copy_bandwidth()
    result.settings["copy_gb_s"] = round(bandwidth / 1e9)
    chosen = sizes.split(",") if sizes else list(SIZES)[: 3 if quick else None]
    for name in chosen:
        progress(name)
        try:
            _elements(result, name, bandwidth, quick)
        except RuntimeError as error:  # a card of less memory
            result.note(f"{name} is not measured: {str(error).splitlines()[0]}")
        gc.collect()
        torch.cuda.empty_cache()
    progress("language model")
    _model(result, quick)
    result.note("added: optimizer.step() with RWalk attached less the same without, time between events on the stream")
    result.note("device added: the same of steps replayed from a CUDA graph, which no host launches one by one")
    result.note(f"bound: {bytes_per_parameter(DELTA_T):.1f} bytes a parameter in a later task at the copy's bandwidth")
    result.note("launches, copies and waits: kernels, host copies and host synchronisations that a step has more")
    result.note("Avalanche's operations: our own code of what its plugin computes, parameter by parameter")
    return result


def _tests(result: Result, workers: str) -> None:
    began = time.perf_counter()
    options = ["-p", "no:cacheprovider", "-p", "no:benchmark", "-o", "addopts=", "--import-mode=importlib", "-q", "-ra"]
    command = [sys.executable, "-m", "pytest", *TESTS, "-n", workers, *options]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    result.settings["tests"] = lines[-1].strip("= ") if lines else done.stderr[-300:]
    result.settings["tests_seconds"] = round(time.perf_counter() - began, 1)
    print("\n".join(lines[-60:]), done.stderr[-2000:], flush=True)
    result.ratios["tests_failed"] = float(done.returncode != 0)


def _elements(result: Result, name: str, bandwidth: float, quick: bool) -> None:
    parameters, width = SIZES[name]
    variants: dict[str, Any] = {
        "bare": None,
        "triton, first task": (RWalkConfig(backend="fused", delta_t=DELTA_T), 0),
        "triton": (RWalkConfig(backend="fused", delta_t=DELTA_T), 1),
        "triton, proximal": (RWalkConfig(backend="fused", delta_t=DELTA_T, penalty="proximal"), 1),
        "triton, bf16 state": (RWalkConfig(backend="fused", delta_t=DELTA_T, state_dtype="bfloat16"), 1),
        "eager": (RWalkConfig(backend="eager", delta_t=DELTA_T), 1),
        "avalanche's operations": "avalanche",
    }
    if name == "1b":  # one at a time
        variants = {key: variants[key] for key in ("bare", "triton", "eager")}
    times, replayed, counted, elements = added(parameters, width, variants, steps=20, rounds=3 if quick else 7)
    bound = bytes_per_parameter(DELTA_T) * elements / bandwidth
    for variant, (median, low, high) in times.items():
        more = median - times["bare"][0]
        row: dict[str, Any] = {"size": name, "parameters": elements, "variant": variant, "step_ms": 1e3 * median}
        row |= {"q1_ms": 1e3 * low, "q3_ms": 1e3 * high}
        if variant != "bare":
            row |= {"added_ms": 1e3 * more, "bound_ms": 1e3 * bound, "added / bound": more / bound}
            if variant in replayed:
                row["device added_ms"] = 1e3 * (replayed[variant][0] - replayed["bare"][0])
                row["device added / bound"] = row["device added_ms"] / (1e3 * bound)
                result.ratios[f"{variant.replace(' ', '_').replace(',', '')}_{name}"] = row["device added / bound"]
            row |= counted.get(variant, {})
        result.rows.append(row)
    if name in ("10m", "100m"):
        copies = peak_copies(parameters, width)
        result.settings[f"memory_copies_{name}"] = copies


def _model(result: Result, quick: bool) -> None:
    for precision in ("bf16 autocast", "float32"):
        found = language_model(precision, rounds=3 if quick else 15)
        bare = found["times"]["bare"][0]
        for variant, (median, low, high) in found["times"].items():
            row: dict[str, Any] = {"size": f"transformer, {precision}", "parameters": found["parameters"]}
            row |= {"variant": variant, "step_ms": 1e3 * median, "q1_ms": 1e3 * low, "q3_ms": 1e3 * high}
            if variant != "bare":
                row |= {"added_ms": 1e3 * (median - bare), "added / step": found["ratios"][variant] - 1.0}
                row |= found["counts"][variant]
                key = f"transformer_{precision.split()[0]}_{variant.split()[0]}"
                result.ratios[key] = row["added / step"]
            result.rows.append(row)


if __name__ == "__main__":
    flags: dict[str, dict[str, Any]] = {
        "--no-tests": {"dest": "tests", "action": "store_false", "help": "only measure"},
        "--sizes": {"default": "", "help": "of these sizes only, joined by commas"},
        "--workers": {"default": "6", "help": "processes for the tests"},
    }
    run("gpu", measure, options=flags)
