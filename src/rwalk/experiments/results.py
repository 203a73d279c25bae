"""What came out of a run, and its form on disk: one folder a run, ``result.json`` in it, complete or not there."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rwalk.errors import CheckpointError
from rwalk.experiments.recording import Record
from rwalk.experiments.spec import RunSpec
from rwalk.experiments.writing import writing_whole
from rwalk.metrics import AccuracyMatrix

__all__ = [
    "RESULT",
    "SCHEMA_VERSION",
    "RunResult",
    "as_text",
    "check_folder",
    "checksum",
    "read_json",
    "read_result",
    "set_aside",
    "versions",
    "write_json",
    "write_result",
]

RESULT = "result.json"
BROKEN = ".broken"
SCHEMA_VERSION = 3  # 2: without a checksum
LARGEST = 64 * 2**20
IMPORT_NAMES = {"scikit-learn": "sklearn"}

Reference = tuple[float | None, ...]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)] | None


class _Stored(BaseModel):
    """What every stored run has; beside it stand versions and metrics."""

    model_config = ConfigDict(extra="allow", strict=True)

    accuracy_matrix: Annotated[list[list[Fraction]], Field(min_length=1, max_length=10_000)]
    seconds: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    untrained: list[Fraction] | None = None
    reference: list[Fraction] | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    record: Record | None = None


@dataclass(frozen=True)
class RunResult:
    """What came out of a run.

    Attributes:
        spec: What was run.
        matrix: Accuracy on the stream it is judged by, after each task.
        seconds: Wall time of training and evaluation, without loading data.
        reference: Accuracy on each task k of a model trained jointly on 1..k, None where that was not asked for;
            None altogether without a reference.
        record: Its course, what makes a ``Record``; None of runs that kept none.
    """

    spec: RunSpec
    matrix: AccuracyMatrix
    seconds: float
    reference: Reference | None = None
    record: Mapping[str, Any] | None = None

    @property
    def metrics(self) -> dict[str, float | None]:
        """All metrics, fractions."""
        if self.reference is None:
            return self.matrix.summary()
        return self.matrix.summary([float("nan") if value is None else value for value in self.reference])

    def to_dict(self) -> dict[str, Any]:
        """The content of ``result.json``; accuracies and metrics are fractions."""
        content = {
            "schema_version": SCHEMA_VERSION,
            "config": self.spec.canonical(),
            "versions": versions(),
            "seconds": round(self.seconds, 3),
            "accuracy_matrix": self.matrix.tolist(),
            "untrained": None if self.matrix.untrained is None else self.matrix.untrained.tolist(),
            "reference": None if self.reference is None else list(self.reference),
            **self.metrics,
        }
        if self.record is not None:
            content["record"] = dict(self.record)
        return {**content, "checksum": checksum(content)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> RunResult:
        """The result that a ``result.json`` holds.

        Raises:
            CheckpointError: It holds no run that this version can have stored.
        """
        if stored.get("schema_version") != SCHEMA_VERSION:
            raise CheckpointError(_other_version(stored.get("schema_version")))
        try:
            result = cls._from(stored)
            as_text(result.to_dict())  # numbers only, a reference of every task
        except (ValueError, TypeError, KeyError, ArithmeticError) as error:
            raise CheckpointError(f"not a stored run: {' '.join(str(error).split())[:200]}") from None
        return result

    @classmethod
    def _from(cls, stored: Mapping[str, Any]) -> RunResult:
        matrix = AccuracyMatrix.from_rows(stored["accuracy_matrix"], stored.get("untrained"))
        reference = stored.get("reference")
        spec, seconds = RunSpec(**stored["config"]), float(stored["seconds"])
        record = None if stored.get("record") is None else Record(**stored["record"]).model_dump()
        return cls(spec, matrix, seconds, None if reference is None else tuple(reference), record)


def versions() -> dict[str, str]:
    """Versions of Python and of what computes."""
    return {"python": platform.python_version(), **_installed()}


@cache
def _installed() -> Mapping[str, str]:
    """Looked up once: it takes as long as a very small run."""
    packages = ("rwalk", "torch", "numpy", "scikit-learn", "datasets", "accelerate")
    return {package: version(package) for package in packages if find_spec(IMPORT_NAMES.get(package, package))}


def check_folder(folder: str | Path, *, overwrite: bool) -> Path:
    """Make sure that a run may be stored here, before any work is done.

    Raises:
        FileExistsError: The folder holds a run and ``overwrite`` is False, or it is a file.
        PermissionError: Nothing can be written there.
    """
    folder = Path(folder)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    if not existing.exists():
        raise FileExistsError(
            f"{existing} is a link to {existing.readlink()}, which is not there: make that folder first"
        )
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
    text = as_text(content)
    with writing_whole(target) as file:
        file.write(text.encode())
    return target


def as_text(content: Mapping[str, Any]) -> str:
    """JSON as it is stored."""
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def checksum(content: Mapping[str, Any]) -> str:
    """BLAKE2b of all entries but ``checksum``, in whichever order they stand."""
    entries = {key: value for key, value in content.items() if key != "checksum"}
    return blake2b(json.dumps(entries, sort_keys=True).encode(), digest_size=16).hexdigest()


def read_json(file: Path) -> dict[str, Any]:
    """The entries of a JSON file; its checksum, if it has one, is compared.

    Raises:
        CheckpointError: It is not JSON, no mapping, or was changed since it was written.
        OSError: It cannot be read.
    """
    try:
        if file.stat().st_size > LARGEST:
            raise CheckpointError(f"{file} is larger than any result")
        content = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{file} is not JSON: {str(error)[:200] or 'too deep'}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is not a stored run: it has no entries")
    if "checksum" in content and content["checksum"] != checksum(content):
        raise CheckpointError(f"{file} is damaged: it does not match its checksum")
    return content


def read_result(path: str | Path) -> dict[str, Any]:
    """Read a stored run, given its folder or its file.

    Raises:
        FileNotFoundError: There is none.
        CheckpointError: It is not a stored run, or was changed since it was stored.
    """
    path = Path(path)
    file = path / RESULT if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"no {RESULT} at {path}")
    result = read_json(file)
    if "accuracy_matrix" not in result:
        raise CheckpointError(f"{file} is not a stored run: it has no accuracy_matrix")
    version = result.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise CheckpointError(f"{file}: {_other_version(version)}; a newer version of rwalk wrote it and reads it")
    if isinstance(version, int) and version >= SCHEMA_VERSION and "checksum" not in result:
        raise CheckpointError(f"{file} is damaged: it has no checksum")
    try:
        stored = _Stored(**result)
    except (ValidationError, TypeError) as error:
        raise CheckpointError(f"{file} is not a stored run: {' '.join(str(error).split())[:200]}") from None
    if any(len(row) != len(stored.accuracy_matrix) for row in stored.accuracy_matrix):
        raise CheckpointError(f"{file} is not a stored run: its accuracy_matrix is not square")
    return result


def set_aside(file: Path, error: Exception) -> str:
    """Rename a file that cannot be used, so that it is made again; what to tell of it."""
    aside = file.with_name(file.name + BROKEN)
    file.replace(aside)
    return f"{error}; it was renamed to {aside.name} and is computed again"


def _other_version(found: object) -> str:
    return f"schema_version={repr(found)[:50]}: expected {SCHEMA_VERSION}"


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")
