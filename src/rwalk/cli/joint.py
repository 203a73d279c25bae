"""A stored run of method ``joint`` as the reference of another run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rwalk.errors import DataUnavailableError
from rwalk.experiments import RunSpec, read_result
from rwalk.experiments.data import evaluated, fingerprint, stream_of
from rwalk.experiments.results import Reference
from rwalk.streams import Stream, labels_of

__all__ = ["joint_accuracies"]

#: Settings that a stream follows from; those of its parts may say the same in other words.
PARTS = ("n_experiences", "class_order", "sizes", "only_first")
STREAM = ("benchmark", *PARTS, "shuffle_classes", "task_labels", "validation")


def joint_accuracies(path: Path, spec: RunSpec) -> Reference:
    """What a stored joint run reached on each experience, if it is one over the spec's stream.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is another run; the message says in what.
    """
    stored = read_result(path)
    config, rows = stored.get("config", {}), stored["accuracy_matrix"]
    ours = spec.canonical()
    stream = {name: ours[name] for name in (*STREAM, *(["seed"] if spec.shuffle_classes else []))}
    for name, value in {"method": "joint", **stream}.items():
        if config.get(name) != value and not (name in PARTS and _same_parts(config, spec)):
            raise ValueError(
                f"{path}: --reference needs a run with {name}={value!r}, this one has {config.get(name)!r}"
            )
    if any(len(row) != len(rows) or row[index] is None for index, row in enumerate(rows)):
        raise ValueError(f"{path}: its accuracy matrix is not square, or not measured on the diagonal")
    return tuple(row[index] for index, row in enumerate(rows))


def _same_parts(config: Mapping[str, Any], spec: RunSpec) -> bool:
    """Whether a stored run's stream has the spec's experiences, by other words: a usual number was not given, say."""
    try:
        theirs = stream_of(RunSpec(**{name: config[name] for name in (*STREAM, "method", "seed")}))
    except (ValueError, TypeError, KeyError, DataUnavailableError):
        return False
    both = [[_parts(stream) for stream in (data.train_stream, evaluated(data))] for data in (theirs, stream_of(spec))]
    return both[0] == both[1]


def _parts(stream: Stream) -> tuple[str, list[Any]]:
    """What tells the experiences of one stream from another's."""
    return fingerprint(stream), [
        (set(each.classes_in_this_experience), len(labels_of(each.dataset))) for each in stream
    ]
