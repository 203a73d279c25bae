"""A run in its folder: held while it goes on, resumed where it was interrupted, its result never lost."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rwalk.core.replacing import naming
from rwalk.errors import CheckpointError
from rwalk.experiments.results import (
    RESULT,
    Reference,
    RunResult,
    as_text,
    checksum,
    read_json,
    read_result,
    set_aside,
    write_json,
)
from rwalk.experiments.runner import run
from rwalk.experiments.spec import RunSpec
from rwalk.experiments.watching import gone_with_parent
from rwalk.training import BasePlugin, CheckpointPlugin
from rwalk.training.plugins.checkpoints import checkpoints

__all__ = ["CHECKPOINTS", "WEIGHTS", "Replacing", "begun", "carry_out", "finished", "refer", "unwritten"]

CHECKPOINTS, WEIGHTS = "checkpoints", "weights.safetensors"
RESERVE = ".result.reserve"

Tell = Callable[[str], object]


class Replacing(CheckpointPlugin):
    """Checkpoints of a run that takes another one's place in its folder; what that has stored goes with the first.

    Until then it stays: the new run has nothing to show. From then on it could only be taken for the new run's.

    Args:
        folder: The runs' own.
        every: As ``CheckpointPlugin``.
    """

    def __init__(self, folder: Path, every: int) -> None:
        super().__init__(folder / CHECKPOINTS, every=every)
        self._replaced = (folder / RESULT, folder / WEIGHTS, unwritten(folder))

    def write(self, strategy: Any) -> Path:
        """As ``CheckpointPlugin``."""
        written = super().write(strategy)
        for path in self._replaced:
            path.unlink(missing_ok=True)
        return written


def begun(folder: Path) -> bool:
    """Whether a run was interrupted here that can go on."""
    return bool(checkpoints(folder / CHECKPOINTS))


def finished(folder: Path, tell: Tell) -> RunResult | None:
    """The result that is stored here; one that is broken is set aside, and told of.

    A result that the disk was too full for is written now.
    """
    kept = unwritten(folder)
    if kept.is_file() and not (folder / RESULT).is_file():
        with contextlib.suppress(CheckpointError):
            write_json(read_json(kept), folder / RESULT)
            tell(f"the result kept at {kept} was written to {folder / RESULT}")
        kept.unlink(missing_ok=True)
    if not (folder / RESULT).exists():
        return None
    try:
        return RunResult.from_dict(read_result(folder))
    except (CheckpointError, FileNotFoundError) as error:
        if str(folder) not in str(error):
            error = CheckpointError(f"{folder / RESULT}: {error}")
        tell(set_aside(folder / RESULT, error))
        return None


def carry_out(
    spec: RunSpec,
    folder: Path,
    *,
    plugins: Sequence[BasePlugin] = (),
    reference: Callable[[], Reference | None] = lambda: None,
    checkpoint: CheckpointPlugin | None = None,
) -> RunResult:
    """Carry out a run, from its last checkpoint if it has one, and store its result.

    The caller holds the folder (``held``).

    Args:
        spec: What to run.
        folder: The run's own.
        plugins: Further plugins, such as a progress display.
        reference: Gives the reference of intransigence.
        checkpoint: Writes checkpoints; they go when the result is there, and the last weights stay beside it.

    Raises:
        OSError: Something could not be written. If that is the result, the message says where it is kept; the next try
            writes it.
    """
    with _reserve(folder) as reserve:
        joint = reference()
        weights = None if checkpoint is None else folder / WEIGHTS
        result = run(spec, plugins=plugins, reference=joint, checkpoint=checkpoint, weights=weights)
        if weights is None:  # those of a run whose place this one takes
            (folder / WEIGHTS).unlink(missing_ok=True)
        try:
            write_json(result.to_dict(), folder / RESULT)
        except OSError as error:
            _write_without_room(as_text(result.to_dict()).encode(), reserve, folder, error)
    if checkpoint is not None:
        checkpoint.clear()
    return result


def refer(folder: Path, result: RunResult, reference: Reference) -> RunResult:
    """Put a reference into a result that is stored, from whose matrix intransigence follows; nothing is trained.

    Raises:
        ValueError: It does not cover the stream.
        OSError: It could not be written; what was stored is as it was.
    """
    tasks = len(result.matrix.tolist())
    if len(reference) != tasks:
        raise ValueError(f"the reference has {len(reference)} accuracies for {tasks} experiences")
    if result.reference == reference:
        return result
    referred = replace(result, reference=reference)
    content = {**read_result(folder), "reference": list(reference), **referred.metrics}  # with the versions of then
    write_json({**content, "checksum": checksum(content)}, folder / RESULT)
    return referred


def unwritten(folder: Path) -> Path:
    """Where a result is kept that cannot be written to its folder."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    place = blake2b(str(folder.absolute()).encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"rwalk-{user}" / f"{place}.json"


@contextmanager
def _reserve(folder: Path, size: int = 2**16) -> Iterator[Path]:
    """Room on the disk for the result, taken before there is anything to lose."""
    path = folder / RESERVE
    try:
        with naming(path):
            path.write_bytes(b"\0" * size)
        with gone_with_parent(path):
            yield path
    finally:
        path.unlink(missing_ok=True)


def _write_without_room(content: bytes, reserve: Path, folder: Path, error: OSError) -> None:
    """Put a result where there is room: into the room reserved for it, which becomes ``result.json``; else elsewhere.

    Raises:
        OSError: It is not in its folder; the message says where it is.
    """
    try:
        with reserve.open("r+b") as file:
            file.write(content)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        reserve.replace(folder / RESULT)
    except OSError:
        elsewhere = unwritten(folder)
        elsewhere.parent.mkdir(mode=0o700, exist_ok=True)
        if elsewhere.parent.stat().st_uid != getattr(os, "getuid", lambda: 0)():
            raise error from None
        elsewhere.write_bytes(content)
        raise OSError(
            f"{folder / RESULT} cannot be written ({error.strerror or error}); the result is kept at {elsewhere}, and "
            "the same command writes it when there is room"
        ) from error
