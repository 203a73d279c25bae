"""What came out of a run, and its form on disk: one folder a run, ``result.json`` in it, complete or not there."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rwalk.experiments.spec import RunSpec
from rwalk.metrics import AccuracyMatrix

__all__ = [
    "RESULT",
    "SCHEMA_VERSION",
    "RunResult",
    "check_folder",
    "read_result",
    "versions",
    "write_json",
    "write_result",
]

RESULT = "result.json"
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
        matrix = AccuracyMatrix.from_rows(stored["accuracy_matrix"], stored.get("untrained"))
        reference = stored.get("reference")
        return cls(
            RunSpec(**stored["config"]), matrix, stored["seconds"], None if reference is None else tuple(reference)
        )


def versions() -> dict[str, str]:
    """Versions of Python and of what computes."""
    packages = ("rwalk", "torch", "numpy", "scikit-learn", "datasets", "accelerate")
    installed = {package: version(package) for package in packages if find_spec(IMPORT_NAMES.get(package, package))}
    return {"python": platform.python_version(), **installed}


def check_folder(folder: str | Path, *, overwrite: bool) -> Path:
    """Make sure that a run may be stored here, before any work is done.

    Raises:
        FileExistsError: The folder holds a run and ``overwrite`` is False, or it is a file.
        PermissionError: Nothing can be written there.
    """
    folder = Path(folder)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise FileExistsError(f"{existing} is a file: --out names a folder")
    if (folder / RESULT).exists() and not overwrite:
        raise FileExistsError(f"{folder} holds another run ({RESULT}): choose another folder, or --overwrite it")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise PermissionError(f"cannot write to {existing} ({error.strerror}): choose another folder") from None
    return folder


def write_result(result: Mapping[str, Any], folder: str | Path) -> Path:
    """Write ``result.json`` atomically, making the folder if need be.

    Returns:
        The file's path.
    """
    return write_json(result, Path(folder) / RESULT)


def write_json(content: Mapping[str, Any], target: Path) -> Path:
    """Write a JSON file that is there whole or not at all, making its folder if need be."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target


def read_result(path: str | Path) -> dict[str, Any]:
    """Read a stored run, given its folder or its file.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is not a stored run.
    """
    path = Path(path)
    file = path / RESULT if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"no {RESULT} at {path}")
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if not isinstance(result, dict) or "accuracy_matrix" not in result:
        raise ValueError(f"{file} is not a stored run: it has no accuracy_matrix")
    return result
