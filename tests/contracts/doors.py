"""The register of doors: every way into rwalk, by name. A file ``doors_*.py`` beside this one adds its ``DOORS``.

A door trains the whole problem through its framework, as a user would: build the framework's objects, train each task,
``outcome.record`` where the task's training ends and again once it is consolidated. Data comes in the problem's order
(no shuffling); ``accumulation`` batches of ``batch_size / accumulation`` make a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from contracts.problem import Outcome, Precision, Problem


@dataclass(frozen=True)
class Door:
    """A way in.

    Attributes:
        run: ``(problem, precision, accumulation)`` to the outcome. ``"bf16"`` and ``"fp16"`` mean autocast with
            float32 parameters, fp16 with a GradScaler that starts at ``problem.LOSS_SCALE``.
        precisions: Those that the framework offers on a CPU.
        accumulations: How many batches make a step.
    """

    run: Callable[[Problem, Precision, int], Outcome]
    precisions: tuple[Precision, ...] = ("float32", "bf16", "fp16")
    accumulations: tuple[int, ...] = (1, 2)


def all_doors() -> dict[str, Door]:
    """Every door of every ``doors_*.py``."""
    found: dict[str, Door] = {}
    for path in sorted(Path(__file__).parent.glob("doors_*.py")):
        found.update(import_module(f"contracts.{path.stem}").DOORS)
    return found
