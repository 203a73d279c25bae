"""How far our step is from what the machine's memory allows."""

from __future__ import annotations

import gc

from benchmarks.bare_core import BYTES_MOVED_PER_ELEMENT, core, core_visit, triad
from benchmarks.command import Result, progress, run
from benchmarks.models import size
from benchmarks.timing import interleave
from benchmarks.traffic import PARTS, bytes_per_parameter, floats_per_parameter

DELTA_T = 10
ELEMENTS = 48_000_000  # 192 MB an array
SIZES = {"6m": 5_800_000, "25m": 25_000_000, "100m": 100_000_000}
SECONDS = {"6m": 10.0, "25m": 15.0, "100m": 30.0}


def measure(quick: bool) -> Result:
    """Time the core's part of a step against the bytes that it must move over the measured triad bandwidth."""
    result = Result({"delta_t": DELTA_T, "triad_elements": ELEMENTS, "penalty": "acts"})
    for name in list(SIZES)[: 2 if quick else None]:
        for backend in ("fused", "eager"):
            progress(f"{name} {backend}")
            _measure(result, name, backend, quick)
            gc.collect()
    for part in PARTS:
        moved = f"reads {', '.join(part.reads)}; writes {', '.join(part.writes)}"
        result.note(f"{part.name}: {moved}: {part.floats} floats a parameter")
    result.note(f"together {floats_per_parameter(DELTA_T):.1f} floats, {bytes_per_parameter(DELTA_T):.1f} bytes")
    result.note("bandwidth: torch.add(b, c, alpha=s, out=a) at 12 bytes an element; write-allocate is not counted")
    result.note("below 1: the step writes only what it has read; the triad's target is fetched before it is written")
    return result


def _measure(result: Result, name: str, backend: str, quick: bool) -> None:
    rwalk = core(SIZES[name], backend=backend, delta_t=DELTA_T)
    parameters = size(rwalk.model)
    turns = {"triad": triad(ELEMENTS), "core": core_visit(rwalk, DELTA_T)}
    rounds = interleave(turns, budget=2.0 if quick else SECONDS[name], at_least=3 if quick else 5)
    moved = bytes_per_parameter(DELTA_T) * parameters
    bandwidth = rounds.summary(lambda seconds: BYTES_MOVED_PER_ELEMENT * ELEMENTS / seconds["triad"])
    time = rounds.summary(lambda seconds: seconds["core"])
    ratio = rounds.summary(
        lambda seconds: seconds["core"] / (moved / (BYTES_MOVED_PER_ELEMENT * ELEMENTS / seconds["triad"]))
    )
    result.rows.append(
        {
            "parameters": parameters,
            "backend": rwalk.backend,
            "rounds": len(rounds),
            "step_ms": 1e3 * time.median,
            "q1_ms": 1e3 * time.q1,
            "q3_ms": 1e3 * time.q3,
            "ns_a_parameter": 1e9 * time.median / parameters,
            "triad_gb_s": bandwidth.median / 1e9,
            "bound_ms": 1e3 * time.median / ratio.median,
            "ratio": ratio.median,
        }
    )
    result.ratios[f"{backend}_{name}"] = ratio.median


if __name__ == "__main__":
    run("roofline", measure)
