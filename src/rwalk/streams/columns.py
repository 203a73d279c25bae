"""Which column of a table holds the inputs, and which the class labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["find_columns", "kind_of"]

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
NUMBERS = (*INTEGERS, "float16", "float32", "float64")


def find_columns(
    name: str, features: Mapping[str, Any], input_column: str | None = None, label_column: str | None = None
) -> tuple[str, str]:
    """The column of inputs and the column of labels.

    Inputs are the one column of images, else the one of arrays, else the one of text. Labels are the one column of
    class labels, else the one of whole numbers.

    Args:
        name: Name of the dataset, for messages.
        features: The features of a Hugging Face dataset.
        input_column: The column of inputs, where that is not enough.
        label_column: The column of labels, where that is not enough.

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


def _listed(columns: Any) -> str:
    return ", ".join(repr(column) for column in columns)
