"""A ``BaseProtection``'s state as a file, with a checksum of every byte as RWalk's own have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from rwalk.core.container import Container, Deferred, shown, write_container
from rwalk.errors import StateError

__all__ = ["read", "write"]

KEY = "rwalk.base_protection"


def write(state: Mapping[str, Any], path: str | Path) -> None:
    """Write a state, complete or not at all: tensors as ``quantity/name``, all else as JSON in the file's metadata.

    Raises:
        OSError: It cannot be written.
    """
    tensors: dict[str, Deferred] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for name, values in state["parameters"].items():
        scalars[name] = {key: value for key, value in values.items() if not isinstance(value, Tensor)}
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{key}/{name}"] = Deferred.of(value)
    write_container(Path(path), KEY, {**state, "parameters": scalars}, tensors)


def read(path: str | Path) -> dict[str, Any]:
    """Read it back, tensors on the CPU, verified.

    Raises:
        FileNotFoundError: No such file.
        OSError: It cannot be read.
        StateError: Not a safetensors file, not one of these, or damaged.
    """
    with Container.opened(path, KEY) as container:
        state = container.content
        parameters = state.get("parameters")
        if not container.verified or not isinstance(parameters, dict):
            raise StateError(f"{path} is not a file that BaseProtection.save wrote, or it is damaged")
        for key, deferred in container.tensors.items():
            quantity, _, name = key.partition("/")
            values = parameters.setdefault(name, {})
            if not isinstance(values, dict) or quantity in values:
                raise StateError(f"{path}: it holds {shown(key)}, which belongs to no parameter: the file is damaged")
            values[quantity] = deferred.whole()
    return state
