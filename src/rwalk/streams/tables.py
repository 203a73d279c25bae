"""Hugging Face datasets as training and test data in memory: splits, columns, and what a column holds as a tensor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from rwalk.errors import DataUnavailableError
from rwalk.streams.data import TensorData
from rwalk.streams.splits import Data, numbered_from_zero, parts

__all__ = ["LENGTH", "VOCABULARY", "Reading", "as_inputs", "find_columns", "hash_tokens", "read_tables"]

TEST_SPLITS = ("test", "validation", "valid", "val", "dev")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
NUMBERS = (*INTEGERS, "float16", "float32", "float64")
CHUNK = 512  # images decoded at a time
GREY = ("1", "L", "LA")
COLOUR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "HSV", "LAB")
LENGTH = 64  # words kept of each text
VOCABULARY = 20_000  # different token ids; as many as `rwalk.models.text_mlp` takes if nothing is said

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a dataset is read; the attributes are arguments of ``load_data``."""

    input_column: str | None = None
    label_column: str | None = None
    train_split: str = "train"
    test_split: str | None = None
    test_fraction: float | None = None
    image_size: tuple[int, int] | None = None
    text_length: int = LENGTH
    vocabulary: int = VOCABULARY


def read_tables(name: str, tables: Mapping[str, Any], reading: Reading) -> Data:
    """Read the splits of a Hugging Face dataset into memory.

    Raises:
        DataUnavailableError: A split is missing.
        ValueError: Columns that cannot be told apart, samples without labels, or classes that one split lacks.
    """
    splits = [_split(name, tables, reading.train_split, "train_split")]
    if reading.test_fraction is None:
        splits.append(_test_split(name, tables, reading))
    features = tables[splits[0]].features
    columns = find_columns(name, features, reading.input_column, reading.label_column)
    for split in splits:
        for column in columns:
            if column not in tables[split].features:
                raise ValueError(f"split {split!r} of {name} has no column {column!r}")
    raw = [_raw_labels(f"split {split!r} of {name}", tables[split], columns[1]) for split in splits]
    names, labels = _numbers(features[columns[1]], raw)
    found = []
    for split, y in zip(splits, labels, strict=True):
        if int(y.min()) < 0:
            raise ValueError(
                f"split {split!r} of {name} is not labelled (class {int(y.min())}): choose another one with "
                f"test_split, or hold out a share of the training data with test_fraction"
            )
        found.append(as_inputs(_inputs(f"split {split!r} of {name}", tables[split], columns[0], reading), y))
    return numbered_from_zero(name, *parts(found, reading.test_fraction), names)


def _split(name: str, tables: Mapping[str, Any], split: str, option: str) -> str:
    if split not in tables:
        raise DataUnavailableError(f"{name} has no split {split!r} but {_listed(tables)}: choose one with {option}")
    if len(tables[split]) == 0:
        raise DataUnavailableError(f"split {split!r} of {name} has no samples")
    return split


def _test_split(name: str, tables: Mapping[str, Any], reading: Reading) -> str:
    if reading.test_split is not None:
        return _split(name, tables, reading.test_split, "test_split")
    for split in TEST_SPLITS:
        if split in tables and split != reading.train_split:
            return _split(name, tables, split, "test_split")
    raise DataUnavailableError(
        f"{name} has no split 'test' but {_listed(tables)}: choose one with test_split, or hold out a share of the "
        f"training data with test_fraction"
    )


def _raw_labels(what: str, table: Any, column: str) -> list[Any]:
    values: list[Any] = table[column][:]
    missing = sum(value is None for value in values)
    if missing:
        raise ValueError(f"{what} is not labelled: {missing} of {len(values)} rows have no {column!r}")
    return values


def _numbers(feature: Any, raw: list[list[Any]]) -> tuple[list[str], list[Tensor]]:
    """Names of the classes, if they have any, and the class number of each row."""
    kind = kind_of(feature)
    if kind in ("classes", "whole numbers"):
        return list(getattr(feature, "names", None) or ()), [torch.tensor(values) for values in raw]
    if kind != "text":
        raise ValueError(f"labels are {kind}: expected class labels, whole numbers or names of classes")
    names = sorted({value for values in raw for value in values})
    number = {value: index for index, value in enumerate(names)}
    return names, [torch.tensor([number[value] for value in values]) for values in raw]


def find_columns(
    name: str, features: Mapping[str, Any], input_column: str | None = None, label_column: str | None = None
) -> tuple[str, str]:
    """The column of inputs and the column of labels.

    Inputs are the one column of images, else the one of arrays, else the one of text. Labels are the one column of
    class labels, else the one of whole numbers.

    Raises:
        ValueError: A column that there is not, none that fits, or several; names all columns, and the option to give.
    """
    for option, given in (("input_column", input_column), ("label_column", label_column)):
        if given is not None and given not in features:
            raise ValueError(f"{option}={given!r}: {name} has the columns {_listed(features)}")
    kinds = {column: kind_of(feature) for column, feature in features.items()}
    if label_column is None:
        rest = {column: kind for column, kind in kinds.items() if column != input_column}
        label_column = _one(name, rest, ("classes", "whole numbers"), "class labels", "label_column")
    if input_column is None:
        rest = {column: kind for column, kind in kinds.items() if column != label_column}
        input_column = _one(name, rest, ("images", "arrays", "text"), "images, arrays or text", "input_column")
    if input_column == label_column:
        raise ValueError(f"{name}: column {input_column!r} cannot hold both inputs and labels")
    return input_column, label_column


def kind_of(feature: Any) -> str:
    """What a column holds: images, arrays, text, classes, whole numbers, or something else."""
    kind = type(feature).__name__
    if kind in ("Image", "ClassLabel"):
        return {"Image": "images", "ClassLabel": "classes"}[kind]
    if kind.startswith("Array") or (kind in ("List", "LargeList", "Sequence") and _leaf(feature) in NUMBERS):
        return "arrays"
    dtype = str(getattr(feature, "dtype", kind))
    if dtype in ("string", "large_string"):
        return "text"
    return "whole numbers" if dtype in INTEGERS else dtype


def _leaf(feature: Any) -> str:
    while hasattr(feature, "feature"):
        feature = feature.feature
    return str(getattr(feature, "dtype", "")) if type(feature).__name__ == "Value" else ""


def _one(name: str, kinds: Mapping[str, str], wanted: tuple[str, ...], what: str, option: str) -> str:
    for kind in wanted:
        found = [column for column, its_kind in kinds.items() if its_kind == kind]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{name} has several columns of {kind}, {_listed(found)}: choose one with {option}")
    columns = ", ".join(f"{column!r} ({kind})" for column, kind in kinds.items())
    raise ValueError(f"{name} has no column of {what} among {columns or 'its columns'}: name one with {option}")


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names)


def _inputs(what: str, table: Any, column: str, reading: Reading) -> Tensor:
    """A column as images (N, C, H, W), uint8, arrays (N, ...) in their own type, or token ids (N, L), int64."""
    kind = kind_of(table.features[column])
    try:
        if kind == "images":
            return decode_images(table, column, reading.image_size)
        if kind == "text":
            return hash_tokens(table[column][:], reading.text_length, reading.vocabulary)
        if kind != "arrays":
            raise ValueError(f"column {column!r} holds {kind}: expected images, arrays or text")
        values = table.with_format("numpy")[column][:]
        if values.dtype == object:
            raise ValueError(f"arrays in column {column!r} differ in shape: expected one shape for all")
        return torch.from_numpy(values)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def decode_images(table: Any, column: str, size: tuple[int, int] | None = None) -> Tensor:
    """All images of a column, grey if all of them are: (N, C, H, W) with C = 1 or 3 (red, green, blue), uint8.

    They are resized to ``size``, height and width (bilinear), if it is given.

    Raises:
        ValueError: Images that differ in size, or that have no 8 bits a channel.
    """
    import numpy as np

    chunks: list[Tensor] = []
    for rows in table.select_columns([column]).iter(CHUNK):
        images = rows[column]
        if any(image is None for image in images):
            raise ValueError(f"column {column!r} has rows without an image")
        for mode in sorted({image.mode for image in images} - {*GREY, *COLOUR}):
            raise ValueError(f"images of mode {mode!r} in column {column!r}: expected 8 bits a channel")
        wanted = "L" if all(image.mode in GREY for image in images) else "RGB"
        pixels = [image if image.mode == wanted else image.convert(wanted) for image in images]
        if size is not None:
            pixels = [image if image.size[::-1] == size else image.resize(size[::-1], 2) for image in pixels]
        shapes = sorted({image.size[::-1] for image in pixels} | {tuple(chunk.shape[2:]) for chunk in chunks[:1]})
        if len(shapes) > 1:
            raise ValueError(
                f"images in column {column!r} differ in size, such as {shapes[0]} and {shapes[-1]}: "
                f"give image_size=(height, width)"
            )
        stacked = torch.from_numpy(np.stack([np.asarray(image) for image in pixels]))
        chunks.append(stacked.unsqueeze(1) if wanted == "L" else stacked.permute(0, 3, 1, 2).contiguous())
    channels = max(chunk.shape[1] for chunk in chunks)
    return torch.cat([chunk.expand(-1, channels, -1, -1) for chunk in chunks])


def as_inputs(x: Tensor, y: Tensor, task_labels: int | Tensor = 0) -> TensorData:
    """Labelled inputs (N, ...) as networks take them.

    Bytes become numbers from 0 to 1. Grey images and flat vectors do so at once; of three channels or more the bytes
    are kept, a quarter of the memory, and each batch is converted as it is taken. float64 becomes float32; other types
    stay.
    """
    if x.dtype is torch.float64:
        x = x.float()
    if x.dtype is torch.uint8:
        if x.dim() == 4 and x.shape[1] > 1:
            return TensorData(x, y, task_labels, transform=to_unit)
        x = to_unit(x)
    return TensorData(x, y, task_labels)


def to_unit(x: Tensor) -> Tensor:
    """Bytes 0 to 255 as float32 from 0 to 1."""
    return x.float().div_(255.0)


def hash_tokens(texts: Iterable[str], length: int = LENGTH, vocabulary: int = VOCABULARY) -> Tensor:
    """Words by their hash, the same on every machine: token ids from 0 to V − 1, shape (N, L), int64.

    A word is a run of letters, digits and underscores, in lower case. Its id is 1 + CRC-32(UTF-8) mod (vocabulary − 1),
    so that different words may share one; 0 fills up short texts (``padding_idx=0`` of an embedding).

    Args:
        texts: N texts.
        length: Words kept of each text, L; the rest is cut off.
        vocabulary: Number of different ids, V.

    Raises:
        ValueError: ``length`` below 1, ``vocabulary`` below 2, or an entry that is no text.

    Example:
        >>> ids = hash_tokens(["To be, or not to be.", "Be!"], length=7, vocabulary=1000)
        >>> ids.shape, bool(ids[0, 1] == ids[1, 0]), ids[1, 1:].tolist()
        (torch.Size([2, 7]), True, [0, 0, 0, 0, 0, 0])
    """
    if length < 1 or vocabulary < 2:
        raise ValueError(f"length={length!r}, vocabulary={vocabulary!r}: expected at least 1 word and 2 ids")
    known: dict[str, int] = {}
    rows = []
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"text {index} is {text!r}: expected a string")
        words = _WORD.findall(text.lower())[:length]
        for word in words:
            if word not in known:
                known[word] = 1 + crc32(word.encode()) % (vocabulary - 1)
        rows.append([known[word] for word in words] + [0] * (length - len(words)))
    return torch.tensor(rows, dtype=torch.int64)
