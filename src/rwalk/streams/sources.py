"""Any labelled dataset as training and test data in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from rwalk.streams.data import TensorData, labels_of
from rwalk.streams.in_memory import as_tensor_data
from rwalk.streams.repositories import KNOWN, load_digits, load_folder, load_repository
from rwalk.streams.splits import Data, numbered_from_zero, parts
from rwalk.streams.tables import LENGTH, VOCABULARY, Reading, as_inputs, read_tables

__all__ = ["check_source", "load_data", "read_into_memory"]


def load_data(
    source: Any,
    *,
    test: Any = None,
    name: str | None = None,
    config: str | None = None,
    input_column: str | None = None,
    label_column: str | None = None,
    train_split: str = "train",
    test_split: str | None = None,
    test_fraction: float | None = None,
    image_size: tuple[int, int] | None = None,
    text_length: int = LENGTH,
    vocabulary: int = VOCABULARY,
) -> Data:
    """Training and test data in memory, from wherever they are.

    Images come as float32 from 0 to 1, (C, H, W); those with several channels are kept as bytes and converted a batch
    at a time. Text comes as token ids (see ``hash_tokens``), arrays as they are. Classes are numbered from 0 in
    ascending order of their labels.

    Args:
        source: The name of a dataset of the catalog (``"mnist"``), a local folder, the name of a dataset on the Hugging
            Face hub (``"owner/name"``), a ``datasets.DatasetDict``, a torch ``Dataset``, or a pair of arrays (x, y). A
            name is tried in this order. With ``RWALK_DATA_DIR`` set nothing is downloaded: what the hub calls
            ``owner/name`` is expected in the folder ``owner/name`` there, and the catalog's datasets by their names.
        test: The test data that belongs to a torch ``Dataset`` or a pair of arrays.
        name: What to call the data; the source's name if None.
        config: Configuration of a hub dataset that has several.
        input_column: The column of inputs; found by its type if None.
        label_column: The column of labels; found by its type if None.
        train_split: The split to train on.
        test_split: The split to test on; ``test``, or else the validation split, if None.
        test_fraction: Hold this share of the training data out as test data instead, evenly over the classes and
            always the same samples.
        image_size: Height and width that images are resized to; as they are if None.
        text_length: Words kept of each text.
        vocabulary: Number of token ids that words are hashed to.

    Raises:
        ValueError: An unknown name (the nearest are listed), columns that cannot be told apart, samples without labels
            or of different shapes, or a class that one of the two parts lacks.
        TypeError: A source of another kind.
        DataUnavailableError: The data is not on this machine and out of reach, or lacks a split.
        MissingExtraError: The library that reads it is not installed.

    Example:
        >>> data = load_data(([[0.0, 1.0], [1.0, 0.0]] * 4, [3, 5] * 4), name="pairs", test_fraction=0.25)
        >>> len(data.train), len(data.test), data.n_classes, data.class_names
        (6, 2, 2, ('3', '5'))
    """
    if test_split is not None and test_fraction is not None:
        raise ValueError(f"test_split={test_split!r} and test_fraction={test_fraction!r}: give one of the two")
    reading = Reading(
        input_column=input_column,
        label_column=label_column,
        train_split=train_split,
        test_split=test_split,
        test_fraction=test_fraction,
        image_size=image_size,
        text_length=text_length,
        vocabulary=vocabulary,
    )
    if isinstance(source, str | Path | Mapping):
        called = name or ("the dataset" if isinstance(source, Mapping) else str(source))
        if test is not None:
            raise ValueError(f"test={type(test).__name__}: {called} brings test data of its own (see test_split)")
        if isinstance(source, Mapping):
            return read_tables(called, source, reading)
        return _named(str(source), called, config, reading)
    called = name or "data"
    _refuse_options(called, config, replace(reading, test_fraction=None))
    if (test is None) == (test_fraction is None):
        raise ValueError(f"{called}: give test data with test=, or a share to hold out with test_fraction=")
    found = [read_into_memory(f"the training data of {called}", source)]
    if test is not None:
        found.append(read_into_memory(f"the test data of {called}", test))
    return numbered_from_zero(called, *parts(found, test_fraction))


def check_source(source: str) -> None:
    """Refuse a name that no dataset can have, before anything is loaded.

    Raises:
        ValueError: Neither in the catalog, nor a folder, nor of the form ``owner/name``; the nearest names are listed.
    """
    if source in KNOWN or (source and Path(source).expanduser().is_dir()):
        return
    if source.startswith((".", "/", "~")):
        raise ValueError(f"no folder {source}: expected a dataset there (see load_data)")
    if source.count("/") == 1 and all(source.split("/")):
        return
    near = get_close_matches(source, KNOWN, n=3, cutoff=0.5)
    raise ValueError(
        f"unknown dataset {source!r}: {'did you mean ' + ' or '.join(near) + '?' if near else 'expected'} one of "
        f"{', '.join(KNOWN)}, a folder, or owner/name on the Hugging Face hub"
    )


def _refuse_options(name: str, config: str | None, reading: Reading) -> None:
    given = {"config": config, **vars(reading)}
    for option, usual in {"config": None, **vars(Reading())}.items():
        if given[option] != usual:
            raise ValueError(f"{option}={given[option]!r} does not apply to {name}, which is no table in files")


def _named(source: str, name: str, config: str | None, reading: Reading) -> Data:
    check_source(source)
    if source == "digits":
        _refuse_options(name, config, reading)
        return replace(load_digits(), name=name)
    if source in KNOWN:
        known = KNOWN[source]
        tables = load_repository(str(known.repository), source, config)
        given = replace(
            reading,
            label_column=reading.label_column or known.label_column,
            test_split=reading.test_split or (known.test_split if reading.test_fraction is None else None),
        )
        return read_tables(name, tables, given)
    folder = Path(source).expanduser()
    tables = load_folder(folder, config) if folder.is_dir() else load_repository(source, source, config)
    return read_tables(name, tables, reading)


def read_into_memory(what: str, source: Any) -> TensorData:
    """The samples of a torch dataset, read once, or of a pair ``(x, y)`` of tensors, arrays or lists.

    ``what`` they are is for messages, such as ``"the test data of cats"``. A ``TensorData`` is taken as it is.

    Raises:
        TypeError: Something else.
        ValueError: No labelled numbers of one shape.
    """
    if isinstance(source, TensorData):
        return source
    if isinstance(source, Dataset):
        return _dataset(what, source)
    if isinstance(source, tuple | list) and len(source) == 2:
        x, y = (_tensor(what, role, values) for role, values in zip(("inputs", "labels"), source, strict=True))
        try:
            data = as_inputs(x, y)
            labels_of(data)
            return data
        except ValueError as error:
            raise ValueError(f"{what}: {error}") from error
    raise TypeError(f"{what} is of type {type(source).__name__}: expected a torch Dataset or a pair of arrays (x, y)")


def _tensor(what: str, role: str, values: Any) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        dtype = getattr(values, "dtype", type(values).__name__)
        raise ValueError(f"{role} of {what} are no array of numbers ({dtype}: {error})") from error


def _dataset(what: str, source: Dataset[Any]) -> TensorData:
    try:
        data = as_tensor_data(source)
        if data is None:
            data = TensorData.from_samples([_sample(source, i) for i in range(len(source))])  # type: ignore[arg-type]
        labels_of(data)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{what} cannot be read into memory ({error}): expected samples (x, y) with tensors x of one shape and "
            f"whole numbers y"
        ) from error
    return data if data.transform is not None else as_inputs(data.x, data.targets, data.task_labels)


def _sample(source: Dataset[Any], position: int) -> tuple[Any, Any, Any]:
    sample = source[position]
    if not isinstance(sample, tuple | list) or len(sample) not in (2, 3):
        raise ValueError(f"sample {position} is a {type(sample).__name__}, not labelled")
    return sample[0], sample[1], sample[2] if len(sample) == 3 else 0
