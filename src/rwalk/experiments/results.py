"""What came out of a run, and its form in a file."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from rwalk.experiments.spec import RunSpec
from rwalk.metrics import AccuracyMatrix

__all__ = ["SCHEMA_VERSION", "RunResult", "versions"]

SCHEMA_VERSION = 2
IMPORT_NAMES = {"scikit-learn": "sklearn"}

Reference = tuple[float | None, ...]


@dataclass(frozen=True)
class RunResult:
    """What came out of a run.

    Attributes:
        spec: What was run.
        matrix: Accuracy on the stream it is judged by, after each task.
        seconds: Wall time of training and evaluation, without loading data.
        reference: Accuracy on each task k of a model trained jointly on 1..k, None where that was not asked for;
            None altogether without a reference.
    """

    spec: RunSpec
    matrix: AccuracyMatrix
    seconds: float
    reference: Reference | None = None

    @property
    def metrics(self) -> dict[str, float | None]:
        """All metrics, fractions."""
        if self.reference is None:
            return self.matrix.summary()
        return self.matrix.summary([float("nan") if value is None else value for value in self.reference])

    def to_dict(self) -> dict[str, Any]:
        """The content of ``result.json``; accuracies and metrics are fractions."""
        return {
            "schema_version": SCHEMA_VERSION,
            "config": self.spec.canonical(),
            "versions": versions(),
            "seconds": round(self.seconds, 3),
            "accuracy_matrix": self.matrix.tolist(),
            "untrained": None if self.matrix.untrained is None else self.matrix.untrained.tolist(),
            "reference": None if self.reference is None else list(self.reference),
            **self.metrics,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> RunResult:
        """The result that a ``result.json`` holds."""
        rows = stored["accuracy_matrix"]
        matrix = AccuracyMatrix(len(rows))
        if stored.get("untrained") is not None:
            matrix.record(-1, stored["untrained"])
        for index, row in enumerate(rows):
            measured = [value for value in row if value is not None]
            if measured:
                matrix.record(index, measured)
        reference = stored.get("reference")
        return cls(
            RunSpec(**stored["config"]), matrix, stored["seconds"], None if reference is None else tuple(reference)
        )


def versions() -> dict[str, str]:
    """Versions of Python and of what computes."""
    packages = ("rwalk", "torch", "numpy", "scikit-learn", "datasets", "accelerate")
    installed = {package: version(package) for package in packages if find_spec(IMPORT_NAMES.get(package, package))}
    return {"python": platform.python_version(), **installed}
