"""Values and tensors as one sealed file: safetensors behind a line with its checksum. Reading it runs no code.

The first line is ``rwalk-sealed 1 KIND BYTES BLAKE2B``: what the file holds, how many bytes follow, and their BLAKE2b
checksum (of Python's ``hashlib``), which covers tensors, names and order alike. It is compared before anything is
parsed. Numbers, strings, lists, tuples and dictionaries are JSON in safetensors' metadata, with a tag where JSON has
no word for something; each tensor stands there by the name under which safetensors holds it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from rwalk.core.replacing import replacing
from rwalk.errors import CheckpointError, MissingExtraError

__all__ = ["read_sealed", "sealed", "unsealed", "write_sealed"]

MAGIC, VERSION = "rwalk-sealed", 1
KEY = "values"
LONGEST_LINE = 200


def write_sealed(path: Path, kind: str, values: Any) -> Path:
    """Write values and tensors, whole or not at all.

    Raises:
        TypeError: There is something in it that such a file does not hold.
        MissingExtraError: safetensors is not installed.
        OSError: It could not be written; what was there is as it was.
    """
    content = sealed(kind, values)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)
    return path


def read_sealed(path: Path, kind: str) -> Any:
    """Read what ``write_sealed`` wrote, tensors on the CPU.

    Raises:
        CheckpointError: It is something else, or was changed since.
        OSError: It could not be read.
    """
    return unsealed(path.read_bytes(), kind, str(path))


def sealed(kind: str, values: Any) -> bytes:
    """The file's content; see ``write_sealed``."""
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_packed(values, tensors, ()), ensure_ascii=False, separators=(",", ":"))
    body: bytes = _safetensors().save(tensors, metadata={KEY: text})
    digest = blake2b(body, digest_size=32).hexdigest()
    return f"{MAGIC} {VERSION} {kind} {len(body)} {digest}\n".encode() + body


def unsealed(content: bytes, kind: str, name: str = "the file") -> Any:
    """What a file's content holds; see ``read_sealed``."""
    line, _, body = content.partition(b"\n")
    words = line[:LONGEST_LINE].decode("ascii", errors="replace").split(" ")
    if len(words) != 5 or words[0] != MAGIC:
        raise CheckpointError(f"{name} is no file of this kind: it does not begin with {MAGIC!r}")
    if words[1] != str(VERSION):
        raise CheckpointError(f"{name} has version {words[1]!r}: this rwalk reads {VERSION}")
    if words[2] != kind:
        raise CheckpointError(f"{name} holds a {words[2]!r}, not a {kind!r}")
    if words[3] != str(len(body)) or words[4] != blake2b(body, digest_size=32).hexdigest():
        raise CheckpointError(f"{name} is damaged: its {len(body)} bytes do not match their checksum")
    library = _safetensors()
    try:
        tensors = library.load(body)
        header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
        return _unpacked(json.loads(header["__metadata__"][KEY]), tensors)
    except (
        library.SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
    ) as error:
        raise CheckpointError(f"{name} holds nothing that rwalk has written ({type(error).__name__})") from None


def _safetensors() -> Any:
    """The library, which training without checkpoints does not need."""
    try:
        from safetensors import SafetensorError, torch
    except ImportError as error:
        raise MissingExtraError("a checkpoint", "train", error) from error
    return SimpleNamespace(load=torch.load, save=torch.save, SafetensorError=SafetensorError)


def _packed(value: Any, tensors: dict[str, Tensor], where: tuple[Any, ...]) -> Any:  # noqa: PLR0911 - a case each
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -(2**53) < value < 2**53 else {"int": str(int(value))}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, list):
        return [_packed(inner, tensors, (*where, place)) for place, inner in enumerate(value)]
    if isinstance(value, tuple):
        return {"tuple": [_packed(inner, tensors, (*where, place)) for place, inner in enumerate(value)]}
    if isinstance(value, Mapping):
        pairs = [[_packed(key, tensors, where), _packed(inner, tensors, (*where, key))] for key, inner in value.items()]
        return {"counter" if isinstance(value, Counter) else "dict": pairs}
    place = ".".join(map(str, where)) or "it"
    raise TypeError(
        f"a checkpoint holds tensors, numbers and strings in dictionaries, lists and tuples; {place} is "
        f"{type(value).__name__}"
    )


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:  # noqa: PLR0911 - a case each
    if isinstance(value, list):
        return [_unpacked(inner, tensors) for inner in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag == "tensor":
        return tensors[content]
    if tag == "int":
        return int(content)
    if tag == "float":
        return float(content)
    if tag == "tuple":
        return tuple(_unpacked(inner, tensors) for inner in content)
    if tag in ("dict", "counter"):
        found = {_unpacked(key, tensors): _unpacked(inner, tensors) for key, inner in content}
        return found if tag == "dict" else Counter(found)
    raise ValueError(f"unknown tag {tag!r}")
