"""Hugging Face datasets as training and test data in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rwalk.errors import DataUnavailableError
from rwalk.streams.columns import find_columns, kind_of
from rwalk.streams.decoding import as_inputs, decode_inputs
from rwalk.streams.numbering import numbered_from_zero, parts
from rwalk.streams.splits import Data
from rwalk.streams.text import LENGTH, VOCABULARY

__all__ = ["Reading", "read_tables"]

TEST_SPLITS = ("test", "validation", "valid", "val", "dev")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a dataset is read.

    Attributes:
        input_column: The column of inputs; found by its type if None.
        label_column: The column of labels; found by its type if None.
        train_split: The split to train on.
        test_split: The split to test on; ``test``, or else the validation split, if None.
        test_fraction: Hold this share of the training split out as test data instead.
        image_size: Height and width that images are resized to; as they are if None.
        text_length: Words kept of each text.
        vocabulary: Number of token ids that words are hashed to.
    """

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

    Args:
        name: What the dataset is called, for messages too.
        tables: A ``datasets.DatasetDict``.
        reading: Which columns and splits, and how.

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


def _inputs(what: str, table: Any, column: str, reading: Reading) -> Tensor:
    try:
        return decode_inputs(
            table, column, image_size=reading.image_size, length=reading.text_length, vocabulary=reading.vocabulary
        )
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _listed(tables: Mapping[str, Any]) -> str:
    return ", ".join(repr(split) for split in tables)
