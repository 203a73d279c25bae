"""Where RWalk's state lies in the checkpoints of Hugging Face's Trainer, and how a resumed training finds it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from rwalk.errors import RWalkError

__all__ = ["checkpoint_of", "named_to_resume", "resumed_from", "state_file"]

TRAINER_STATE = "trainer_state.json"


def state_file(path: Path) -> Path:
    """The state in a checkpoint folder; a path that is not a folder is taken as the state itself.

    In a folder it lies one level down, because some servers load every safetensors file that lies beside a model's.
    """
    return path / "rwalk" / "state.safetensors" if path.is_dir() else path


def checkpoint_of(args: Any, state: Any) -> Path:
    """The folder that Trainer writes at this step, from its ``TrainingArguments`` and ``TrainerState``."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def named_to_resume() -> Path | None:
    """The checkpoint that ``train(resume_from_checkpoint=...)`` was given, found where Trainer's loop has it.

    Trainer does not tell its callbacks. None if nothing that trains is calling.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        found = frame.f_locals.get("resume_from_checkpoint")
        if hasattr(frame.f_locals.get("self"), "callback_handler") and isinstance(found, (str, Path)):
            return Path(found)
        frame = frame.f_back
    return None


def resumed_from(args: Any, state: Any, named: Path | None, start_from: str | Path | None) -> Path:
    """The checkpoint whose state a resumed training goes on from: the named one, or what is sure to be the same.

    Another folder is the same if it holds a state of RWalk, and the same step and log as the Trainer's state. Where
    nothing was logged yet, only one that the user names can be it.

    Args:
        args: ``TrainingArguments``, whose ``output_dir`` is searched first where none is named.
        state: The ``TrainerState`` that Trainer read from the checkpoint.
        named: The checkpoint, where it is known.
        start_from: Where the user says that the state is.

    Raises:
        RWalkError: None of the places is this checkpoint.
    """
    if named is not None and state_file(named).is_file():
        return named
    others = [args.resume_from_checkpoint, start_from]
    if named is None and state.log_history:
        others.insert(0, checkpoint_of(args, state))
    places = [Path(place) for place in others if isinstance(place, (str, Path))]
    for place in places:
        if (place / TRAINER_STATE).is_file() and state_file(place).is_file() and _is_of(place, state):
            return place
    looked = dict.fromkeys([*([] if named is None else [named]), *places])
    raise RWalkError(
        f"training goes on from step {state.global_step}, but no RWalk state of that checkpoint is at "
        f"{' or '.join(map(str, looked)) or 'a place that is named'}: give its folder as start_from=, or resume from a "
        "checkpoint that was saved with this callback"
    )


def _is_of(place: Path, state: Any) -> bool:
    recorded = json.loads((place / TRAINER_STATE).read_text(encoding="utf-8"))
    found = [recorded["global_step"], recorded["log_history"]]
    return json.dumps(found) == json.dumps([state.global_step, state.log_history])  # as text: NaN is not NaN's equal
