"""RWalk's state as a file.

The file is safetensors, so that it outlives torch versions and never runs code when it is read, with a checksum of
every byte. ``docs/state-file.md`` describes it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from rwalk.core.checking import SCHEMA, check_state
from rwalk.core.container import Container, Deferred, shown, write_container
from rwalk.core.exporting import made
from rwalk.errors import StateError

__all__ = ["inspect_state", "load_state", "opened", "save_state"]

KEY = "rwalk"


def save_state(state: Mapping[str, Any], path: str | Path) -> None:
    """Write a ``state_dict`` atomically: the file is either complete or not there.

    Tensors are stored as ``quantity/parameter.name``, one after the other; all else as JSON in the file's metadata.

    Args:
        state: What ``RWalk.state_dict`` returned; tensors may be deferred.
        path: Where to. An existing file is replaced.

    Raises:
        OSError: It cannot be written; the old file is as it was.
    """
    tensors: dict[str, Deferred] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for name, values in state["parameters"].items():
        scalars[name] = {key: value for key, value in values.items() if not isinstance(value, Tensor | Deferred)}
        for key, value in values.items():
            if isinstance(value, Tensor | Deferred):
                tensors[f"{key}/{name}"] = value if isinstance(value, Deferred) else Deferred.of(value)
    content = {**state, "schema": SCHEMA, "written": int(time.time()), "parameters": scalars}
    write_container(Path(path), KEY, content, tensors)


@contextmanager
def opened(path: str | Path) -> Iterator[dict[str, Any]]:
    """A file's state, with tensors that are read, on the CPU, and verified when they are asked for.

    The file stays open meanwhile, and no other is: what is saved in its place is not seen. Everything else has been
    checked.

    Raises:
        FileNotFoundError: No such file.
        OSError: It cannot be read.
        StateError: Not a safetensors file, not rwalk's, or damaged.
    """
    with Container.opened(path, KEY) as container:
        yield _state_in(container, path)


def load_state(path: str | Path) -> dict[str, Any]:
    """Read a state file back into a ``state_dict``, tensors on the CPU.

    Raises:
        FileNotFoundError: No such file.
        OSError: It cannot be read.
        StateError: Not a safetensors file, not rwalk's, or damaged.
    """
    with opened(path) as state:
        found = made(state)
    found.pop("written", None)
    return found


def inspect_state(path: str | Path) -> dict[str, Any]:
    """Read what a state file says of itself (config, counters, parameters) without its tensors.

    Raises:
        FileNotFoundError: No such file.
        OSError: It cannot be read.
        StateError: Not a safetensors file, not rwalk's, or what it says is damaged.
    """
    with opened(path) as state:
        parameters = {
            name: {key: value for key, value in values.items() if not isinstance(value, Deferred)}
            for name, values in state["parameters"].items()
        }
        return {**state, "parameters": parameters}


def _state_in(container: Container, path: str | Path) -> dict[str, Any]:
    state = container.content
    schema = state.get("schema")
    if type(schema) is int and (schema > 1) != container.verified and schema <= SCHEMA:
        raise StateError(
            f"{path}: the file's own fingerprint is not one of schema {schema}: it was changed after saving, or "
            "written anew by a program that keeps no checksums"
        )
    if not isinstance(state.get("parameters", {}), dict):
        raise StateError(f"{path}: its parameters are {shown(state['parameters'])}: the file is damaged")
    parameters = state.get("parameters", {})
    for key, deferred in container.tensors.items():
        quantity, slash, name = key.partition("/")
        values = parameters.get(name)
        if not slash or not isinstance(values, dict) or quantity in values:
            raise StateError(f"{path}: it holds {shown(key)}, which belongs to no parameter: the file is damaged")
        values[quantity] = deferred
    if schema == 1:
        _check_fingerprint(path, state.pop("fingerprint", None), parameters)
    try:
        check_state(state)
    except StateError as error:
        raise StateError(f"{path}: {error}") from None
    return state


def _check_fingerprint(path: str | Path, fingerprint: object, parameters: Mapping[str, Mapping[str, Any]]) -> None:
    """Schema 1 had no checksums, but SHA-256 of the parameters' names and shapes."""
    found = {name: values["fisher"].shape for name, values in parameters.items() if "fisher" in values}
    listing = json.dumps(sorted((name, list(shape)) for name, shape in found.items()))
    if fingerprint != hashlib.sha256(listing.encode()).hexdigest():
        raise StateError(
            f"{path}: names or shapes do not match the file's own fingerprint; it was changed after saving"
        )
