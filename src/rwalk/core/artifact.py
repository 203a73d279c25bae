"""A state file: safetensors, so that it outlives torch versions and never runs code when it is read."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["inspect_state", "load_state", "save_state"]

KEY = "rwalk"


def save_state(state: Mapping[str, Any], path: str | Path) -> None:
    """Write a ``state_dict`` atomically: the file is either complete or not there.

    Tensors are stored as ``quantity/parameter.name``; all else as JSON in the file's metadata, with a fingerprint of
    names and shapes.

    Args:
        state: What ``RWalk.state_dict`` returned.
        path: Where to. An existing file is replaced.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for name, values in state["parameters"].items():
        scalars[name] = {key: value for key, value in values.items() if not isinstance(value, Tensor)}
        tensors.update(
            {f"{key}/{name}": value.contiguous() for key, value in values.items() if isinstance(value, Tensor)}
        )
    header = {key: value for key, value in state.items() if key != "parameters"}
    header.update(
        parameters=scalars,
        fingerprint=fingerprint({name: v["fisher"].shape for name, v in state["parameters"].items()}),
    )
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata={KEY: json.dumps(header)})
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_state(path: str | Path) -> dict[str, Any]:
    """Read a state file back into a ``state_dict``, tensors on the CPU.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a safetensors file, not rwalk's, or damaged.
    """
    state = inspect_state(path)
    with safe_open(path, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 - not a mapping
            quantity, _, name = key.partition("/")
            state["parameters"].setdefault(name, {})[quantity] = file.get_tensor(key)
    shapes = {name: values["fisher"].shape for name, values in state["parameters"].items() if "fisher" in values}
    if fingerprint(shapes) != state.pop("fingerprint"):
        raise ValueError(
            f"{path}: names or shapes do not match the file's own fingerprint; it was changed after saving"
        )
    return state


def inspect_state(path: str | Path) -> dict[str, Any]:
    """Read what a state file says of itself (config, counters, parameters) without its tensors.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a safetensors file, or not rwalk's.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no rwalk state at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from None
    if KEY not in metadata:
        raise ValueError(f"{path} is a safetensors file, but not one that RWalk.save wrote")
    header: dict[str, Any] = json.loads(metadata[KEY])
    return header


def fingerprint(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """SHA-256 of the parameters' names and shapes, in hexadecimal."""
    listing = json.dumps(sorted((name, list(shape)) for name, shape in shapes.items()))
    return hashlib.sha256(listing.encode()).hexdigest()
