"""Where RWalk's state lies in the checkpoints of Hugging Face's Trainer, and how a resumed training finds it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rwalk.errors import RWalkError

__all__ = ["checkpoint_of", "resumed_from", "state_file"]

TRAINER_STATE = "trainer_state.json"


def state_file(path: Path) -> Path:
    """The state in a checkpoint folder; a path that is not a folder is taken as the state itself.

    In a folder it lies one level down, because some servers load every safetensors file that lies beside a model's.
    """
    return path / "rwalk" / "state.safetensors" if path.is_dir() else path


def checkpoint_of(args: Any, state: Any) -> Path:
    """The folder that Trainer writes at this step, from its ``TrainingArguments`` and ``TrainerState``."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def resumed_from(args: Any, state: Any, others: Iterable[str | Path | None]) -> Path:
    """The checkpoint that ``train(resume_from_checkpoint=...)`` was given: Trainer keeps it from its callbacks.

    A folder is the one if it holds a state of RWalk, and the same step and log as the Trainer's state.

    Args:
        args: ``TrainingArguments``, whose ``output_dir`` is searched first.
        state: The ``TrainerState`` that Trainer read from the checkpoint.
        others: Where else it may be.

    Raises:
        RWalkError: None of the places is this checkpoint.
    """
    places = [checkpoint_of(args, state), *(Path(place) for place in others if place is not None)]
    for place in places:
        if (place / TRAINER_STATE).is_file() and state_file(place).is_file() and _is_of(place, state):
            return place
    raise RWalkError(
        f"training goes on from step {state.global_step}, but no RWalk state of that checkpoint is at "
        f"{' or '.join(map(str, places))}: give its folder as start_from=, or resume from a checkpoint that was saved "
        "with this callback"
    )


def _is_of(place: Path, state: Any) -> bool:
    recorded = json.loads((place / TRAINER_STATE).read_text(encoding="utf-8"))
    found = [recorded["global_step"], recorded["log_history"]]
    return json.dumps(found) == json.dumps([state.global_step, state.log_history])  # as text: NaN is not NaN's equal
