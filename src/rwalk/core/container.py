"""Tensors and JSON in one file, in safetensors' layout, with a checksum of every byte.

The file can be read by any safetensors library. What those do not offer is needed here: tensors go in and out one at a
time, each is checked as it passes, and all that is read comes from one open file. ``docs/state-file.md`` describes the
format.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import torch
from torch import Tensor

from rwalk.core.replacing import replacing
from rwalk.errors import StateError

if TYPE_CHECKING:
    import xxhash

__all__ = ["ALGORITHM", "Container", "Deferred", "in_threads", "parse_json", "shown", "write_container"]

#: 128 bits, about as fast as memory is read. It tells damage, not forgery: whoever can write the file can compute it.
ALGORITHM = "xxh3_128"
EMPTY = "0" * 32
#: Elements that are read or written at a time: still in the cache when they are looked at, and too few for torch to
#: wake its threads.
PIECE = 32_000
#: Elements that are handed to the system at a time.
WRITTEN = 1 << 21
#: As in the safetensors library.
LARGEST_HEADER = 100_000_000
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
#: A file with checksums begins like this, and with the header's own.
OPENING = b'{"__metadata__":{"checksum":"' + ALGORITHM.encode() + b":"


Look = Callable[[Tensor], None]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Deferred:
    """A tensor that is made when it is needed, so that no two of a state need be there at once.

    Attributes:
        shape: Its shape.
        dtype: Its dtype.
        make: Makes it. Each call may read it anew; where it is shared by processes, all have to call.
        fill: Makes it in a contiguous tensor of this shape and dtype on the CPU, and shows each piece on the way; None
            where it cannot.
        look: Is shown each piece before it is written, and raises if it must not be.
    """

    shape: torch.Size
    dtype: torch.dtype
    make: Callable[[], Tensor]
    fill: Callable[[Tensor, Look], None] | None = None
    look: Look | None = None

    def whole(self) -> Tensor:
        """Make it, and look at it."""
        tensor = self.make()
        if self.look is not None:
            self.look(tensor)
        return tensor

    @classmethod
    def of(cls, tensor: Tensor) -> Deferred:
        """One that is there already."""
        return cls(tensor.shape, tensor.dtype, lambda: tensor)


def write_container(path: Path, key: str, content: Mapping[str, Any], tensors: Mapping[str, Deferred]) -> None:
    """Write a file, tensor after tensor; it is either complete or not there.

    Args:
        path: Where to. An existing file is replaced.
        key: Under which the metadata hold the content.
        content: Goes into the header as JSON, with ``checksums`` of the tensors.
        tensors: By name, in the order in which they are made and stored. All are made once, also where writing fails.

    Raises:
        OSError: It cannot be written: no room, no permission.
    """
    remaining = iter(tensors.values())
    try:
        with replacing(path) as file, ThreadPoolExecutor(1) as beside:
            sums = dict.fromkeys(tensors, EMPTY)
            file.write(_header(key, {**content, "checksums": sums}, tensors))  # where the true one will be
            for name, deferred in zip(tensors, remaining, strict=True):
                sums[name] = _write(file, deferred, beside)
            file.seek(0)
            file.write(_header(key, {**content, "checksums": sums}, tensors))
    finally:
        for deferred in remaining:  # other processes wait for this one
            deferred.make()


def _write(file: BinaryIO, deferred: Deferred, beside: Executor) -> str:
    """Write a tensor, and take its checksum at the same time."""
    tensor = deferred.make().detach().to("cpu").contiguous()
    summed = beside.submit(_checksum, tensor, deferred.look)
    for memory in map(_memory, tensor.view(-1).split(WRITTEN)):
        file.write(memory)
    return summed.result()


def _checksum(tensor: Tensor, look: Look | None) -> str:
    checksum = _hasher()
    for piece in tensor.view(-1).split(PIECE):
        checksum.update(_memory(piece))
        if look is not None:
            look(piece)
    return checksum.hexdigest()


def _header(key: str, content: Mapping[str, Any], tensors: Mapping[str, Deferred]) -> bytes:
    listing: dict[str, Any] = {"__metadata__": {"checksum": f"{ALGORITHM}:{EMPTY}", key: _dumps(content)}}
    end = 0
    for name, deferred in tensors.items():
        start, end = end, end + prod(deferred.shape) * deferred.dtype.itemsize
        dtype, shape = NAMES[deferred.dtype], list(deferred.shape)
        listing[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = _dumps(listing).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + _sealed(text)


def _sealed(header: bytes) -> bytes:
    """The header with its checksum, which is taken with zeros in the checksum's place."""
    at = len(OPENING)
    bare = header[:at] + EMPTY.encode() + header[at + len(EMPTY) :]
    checksum = _hasher()
    checksum.update(bare)
    return header[:at] + checksum.hexdigest().encode() + header[at + len(EMPTY) :]


def _hasher() -> xxhash.xxh3_128:
    import xxhash  # when it is needed

    return xxhash.xxh3_128()


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


class Container:
    """A file that is open for reading; its header has been checked.

    Attributes:
        content: What the metadata hold under the key.
        tensors: What the file holds, in its order, read when it is asked for.
        verified: Whether there are checksums; files of schema 1 have none.
        size: Of the file, in bytes.
        modified: When it was written, in seconds since 1970, as the file system has it.
    """

    def __init__(self, file: BinaryIO, path: Path, key: str) -> None:
        self._file, self._path, self._lock = file, path, Lock()
        found = os.fstat(file.fileno())
        self.size, self.modified = found.st_size, found.st_mtime
        if not stat.S_ISREG(found.st_mode):
            raise StateError(f"{path} is not a file")
        header = self._read_header()
        self.verified = header.startswith(OPENING)
        if self.verified and _sealed(header) != header:
            raise StateError(f"{path}: the header does not match its checksum: the file is damaged")
        self._listing = self._listed(header)
        metadata = self._listing.pop("__metadata__", None)
        if not isinstance(metadata, dict) or not isinstance(metadata.get(key), str):
            writer = "RWalk.save" if key == "rwalk" else key
            raise StateError(f"{path} is a safetensors file, but not one that {writer} wrote")
        self.content: dict[str, Any] = self._parsed(metadata[key], "metadata")
        self.tensors = self._deferred()
        self._sums = self._checksums() if self.verified else {}

    @classmethod
    @contextmanager
    def opened(cls, path: str | Path, key: str) -> Iterator[Container]:
        """Open a file, once: what is saved in its place meanwhile is not seen.

        Raises:
            FileNotFoundError: No such file.
            OSError: It cannot be read.
            StateError: It is not one of ours, or damaged.
        """
        path = Path(path)
        if path.is_dir():
            raise FileNotFoundError(f"no rwalk state at {path}: it is a folder")
        try:  # a pipe without a writer is opened too, and then refused
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            raise FileNotFoundError(f"no rwalk state at {path}") from None
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            yield cls(file, path, key)

    def _read_header(self) -> bytes:
        start = self._read(0, 8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= min(LARGEST_HEADER, self.size - 8):
            raise StateError(f"{self._path} is not a safetensors file: its {self.size} bytes hold no header")
        self._begin = 8 + length
        header = self._read(8, length)
        if len(header) < length:
            raise StateError(f"{self._path} became shorter while it was read")
        return header

    def _read(self, at: int, count: int) -> bytes:
        self._file.seek(at)
        found = b""
        while len(found) < count and (piece := self._file.read(count - len(found))):
            found += piece
        return found

    def _listed(self, header: bytes) -> dict[str, Any]:
        try:
            text = header.decode("utf-8")
        except UnicodeDecodeError:
            raise StateError(f"{self._path} is not a safetensors file: its header is not text") from None
        return self._parsed(text, "header")

    def _parsed(self, text: str, what: str) -> dict[str, Any]:
        try:
            found = parse_json(text)
        except ValueError as error:
            raise StateError(
                f"{self._path} is not a safetensors file of ours: its {what} is damaged ({error})"
            ) from None
        if not isinstance(found, dict):
            raise StateError(f"{self._path} is not a safetensors file of ours: its {what} is {shown(found)}")
        return found

    def _deferred(self) -> dict[str, Deferred]:
        found, end = {}, 0
        for name, entry in self._in_order():
            shape, dtype, (start, stop) = entry["shape"], DTYPES[entry["dtype"]], entry["data_offsets"]
            if start != end or stop - start != prod(shape) * dtype.itemsize:
                raise StateError(f"{self._path}: {shown(name)} does not lie where it belongs: the file is damaged")
            end = stop
            fill = partial(self._fill, name, start)
            found[name] = Deferred(torch.Size(shape), dtype, partial(self._make, name, fill), fill)
        if self._begin + end != self.size:
            raise StateError(
                f"{self._path} is not a safetensors file in one piece: it has {self.size} bytes and should have "
                f"{self._begin + end}"
            )
        return found

    def _in_order(self) -> list[tuple[str, dict[str, Any]]]:
        for name, entry in self._listing.items():
            if not _is_tensor(entry, self.size):
                raise StateError(f"{self._path}: the header's entry of {shown(name)} is damaged: {shown(entry)}")
        return sorted(self._listing.items(), key=lambda item: item[1]["data_offsets"])

    def _checksums(self) -> dict[str, str]:
        sums = self.content.pop("checksums", None)
        if not isinstance(sums, dict) or list(sums) != list(self.tensors):
            raise StateError(f"{self._path}: its checksums are not those of its tensors, in their order")
        return sums

    def _make(self, name: str, fill: Callable[[Tensor, Look], None]) -> Tensor:
        deferred = self.tensors[name]
        tensor = torch.empty(deferred.shape, dtype=deferred.dtype)
        fill(tensor, lambda _: None)
        return tensor

    def _fill(self, name: str, start: int, tensor: Tensor, look: Look) -> None:
        checksum, at = _hasher(), self._begin + start
        for piece in tensor.view(-1).split(PIECE):
            memory = _memory(piece)
            if self._read_into(memory, at) < len(memory):
                raise StateError(f"{self._path} became shorter while it was read")
            at += len(memory)
            checksum.update(memory)
            if tensor.dtype is torch.bool and bool((piece.view(torch.uint8) > 1).any()):
                raise StateError(f"{self._path}: {shown(name)} holds what is neither true nor false")
            look(piece)
        if self.verified and checksum.hexdigest() != self._sums[name]:
            raise StateError(f"{self._path}: {shown(name)} does not match its checksum: the file is damaged")

    def _read_into(self, memory: memoryview, at: int) -> int:
        """Read from a place, by any thread; how much there was."""
        done = 0
        while done < len(memory):
            if hasattr(os, "preadv"):
                count = os.preadv(self._file.fileno(), [memory[done:]], at + done)
            else:
                with self._lock:
                    self._file.seek(at + done)
                    count = self._file.readinto(memory[done:])  # type: ignore[attr-defined]
            if not count:
                break
            done += count
        return done


def in_threads(jobs: Sequence[Callable[[], Result]]) -> list[Result]:
    """What these return: reading, checksums and checks of several tensors go on at once."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda job: job(), jobs))


def _memory(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor, which has to outlive it. Files are little-endian."""
    if sys.byteorder != "little":
        raise NotImplementedError("state files are written and read on little-endian machines only")
    size = tensor.numel() * tensor.element_size()
    return memoryview((ctypes.c_char * size).from_address(tensor.data_ptr())).cast("B") if size else memoryview(b"")


def _is_tensor(entry: Any, size: int) -> bool:
    """Whether an entry of the header has what it must, within the file's size."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return False
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES or not isinstance(shape, list) or len(shape) > 64:
        return False
    if not isinstance(offsets, list) or len(offsets) != 2:
        return False
    return all(type(number) is int and 0 <= number <= size for number in (*shape, *offsets))


def parse_json(text: str) -> Any:
    """JSON as it is defined: no key twice, no NaN.

    Raises:
        ValueError: It is none, or is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_refused)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def shown(value: object) -> str:
    """A value for a message: short, on one line."""
    try:
        text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    except ValueError:  # thousands of digits
        text = "a huge number"
    return text if len(text) <= 80 else f"{text[:60]}…{text[-15:]}"
