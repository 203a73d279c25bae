"""A ``BaseProtection``'s state as a safetensors file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["read", "write"]

KEY = "rwalk.base_protection"


def write(state: Mapping[str, Any], path: str | Path) -> None:
    """Write a state atomically: tensors as ``quantity/name``, all else as JSON in the file's metadata."""
    path, tensors, scalars = Path(path), dict[str, Tensor](), dict[str, dict[str, Any]]()
    for name, values in state["parameters"].items():
        scalars[name] = {key: value for key, value in values.items() if not isinstance(value, Tensor)}
        tensors.update(
            {f"{key}/{name}": value.cpu().contiguous() for key, value in values.items() if isinstance(value, Tensor)}
        )
    header = {**state, "parameters": scalars}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata={KEY: json.dumps(header)})
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read(path: str | Path) -> dict[str, Any]:
    """Read it back, tensors on the CPU.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a safetensors file, or not one of these.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no state of a BaseProtection at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if KEY not in metadata:
                raise ValueError(f"{path} is a safetensors file, but not one that BaseProtection.save wrote")
            state: dict[str, Any] = json.loads(metadata[KEY])
            for key in file.keys():  # noqa: SIM118 - not a mapping
                quantity, _, name = key.partition("/")
                state["parameters"].setdefault(name, {})[quantity] = file.get_tensor(key)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from None
    return state
