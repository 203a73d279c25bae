"""The page about GPUs, written from the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.table import markdown_table

__all__ = ["page"]

HERE = Path(__file__).parent
INTRODUCTION = """# On a GPU

Parameters on a CUDA device are served by one Triton kernel (`RWalk.backend` says `"triton"`): it reads parameters and
gradients where they lie and does in one pass what the eager code does in 18 launches and more. Float32, bfloat16,
float16 and float64 parameters. The same kernel is offered to ROCm and XPU builds of torch, where nobody has tried it
yet; whatever else, Apple's MPS (float32 only) among it, takes eager code. Without
Triton too: `backend="auto"` says so in the log once, `backend="fused"` refuses.

**No wait for the device.** Whether a step counts (its gradient may not be finite, a fused optimizer may skip it under a
`GradScaler`) is known on the device first. From the fourth step on the device counts by itself and decides which window
closes; the host asks only where state is shown, saved or consolidated. Until then, with `damping_scale="relative"`,
`nonfinite="raise"`, gradients of another dtype than their parameter, several devices or FSDP2, the host waits for the
previous step's flag, one step late.

**CUDA graphs.** A whole step, `optimizer.step()` with RWalk attached included, can be captured after at least three
ordinary ones, and replayed; RWalk's counters, importances and `state_dict` may be asked for between replays. Capture
anew after `consolidate()`, `load_state_dict()`, another config or other parameters: steps that an outdated graph
replays leave no trace, and the next thing asked of RWalk tells of them.

`make gpu-check` runs the tests that need a GPU and measures what follows, in less than eight minutes, with the
machine's own torch and nothing installed.
"""


def page(report: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    settings, machine = report["settings"], report["machine"]
    lines = [
        f"Measured {report['date'][:10]}: {settings['device']}, torch {report['versions']['torch']}, "
        f"CUDA {settings['torch_cuda']}, Triton {settings['triton']}, {machine['cpu']}. "
        f"Tests: {settings.get('tests', 'not run')}. A copy moves {settings['copy_gb_s']} GB/s.",
    ]
    for key, copies in settings.items():
        if key.startswith("memory_copies"):
            text = ", ".join(f"{when} {value:.1f}" for when, value in copies.items())
            lines.append(f"Parameter-sized float32 copies beside the model's, {key.split('_')[-1].upper()}: {text}.")
    rows = [{key: value for key, value in row.items() if key not in ("q1_ms", "q3_ms")} for row in report["rows"]]
    elements = [row for row in rows if "added / step" not in row and not row["size"].startswith("transformer")]
    models = [row for row in rows if row["size"].startswith("transformer")]
    parts = [INTRODUCTION, "\n".join(lines), "## The optimizer's step on square layers", markdown_table(elements)]
    parts += ["## A training step of a language model, batch 32, 256 tokens, AdamW (fused)", markdown_table(models)]
    parts += ["\n".join(f"- {note}" for note in report["notes"])]
    return "\n\n".join(part.strip() for part in parts) + "\n"


if __name__ == "__main__":
    found = json.loads((HERE / "results" / "gpu.json").read_text(encoding="utf-8"))
    (HERE.parent / "docs" / "gpu.md").write_text(page(found), encoding="utf-8")
