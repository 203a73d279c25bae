"""Benchmarks by name."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rwalk.errors import DataUnavailableError, MissingExtraError
from rwalk.streams.class_incremental import class_incremental
from rwalk.streams.data import TensorData
from rwalk.streams.domains import permuted
from rwalk.streams.experience import Benchmark

__all__ = ["DATA_DIR", "benchmark", "benchmarks"]

DATA_DIR = "RWALK_DATA_DIR"


@dataclass(frozen=True)
class _Options:
    n_experiences: int | None
    seed: int | None
    task_labels: bool
    class_order: Sequence[int] | None
    sizes: Sequence[int] | None


Builder = Callable[[_Options], Benchmark]


def benchmarks() -> dict[str, str]:
    """Names of all benchmarks, each with a line about it."""
    return {name: (builder.__doc__ or "").strip().splitlines()[0] for name, builder in _CATALOG.items()}


def benchmark(
    name: str,
    *,
    n_experiences: int | None = None,
    seed: int | None = None,
    task_labels: bool = False,
    class_order: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
) -> Benchmark:
    """Build a benchmark by name.

    Args:
        name: One of ``benchmarks()``.
        n_experiences: Into how many experiences; the benchmark's usual number if None.
        seed: Draws what the benchmark leaves to chance: the order of classes, or permutations. None keeps the classes
            in ascending order and draws permutations from seed 0.
        task_labels: Label each experience as a task of its own instead of 0 throughout.
        class_order: Every class once, in the order in which they arrive.
        sizes: Number of classes in each experience.

    Raises:
        ValueError: Unknown name (the known ones are listed), or options that do not fit the benchmark.
        DataUnavailableError: The data is neither on this machine nor to be had.
        MissingExtraError: The library that reads the data is not installed.

    Example:
        >>> digits = benchmark("split-digits")
        >>> len(digits.train_stream), digits.n_classes, digits.input_shape
        (5, 10, (64,))
    """
    if name not in _CATALOG:
        raise ValueError(f"unknown benchmark {name!r}: choose one of {', '.join(_CATALOG)}")
    return _CATALOG[name](_Options(n_experiences, seed, task_labels, class_order, sizes))


def _split(name: str, train: TensorData, test: TensorData, options: _Options) -> Benchmark:
    return class_incremental(
        name,
        train,
        test,
        5 if options.n_experiences is None and options.sizes is None else options.n_experiences,
        sizes=options.sizes,
        class_order=options.class_order,
        seed=options.seed,
        task_labels=options.task_labels,
    )


def _split_digits(options: _Options) -> Benchmark:
    """scikit-learn's bundled 8×8 digits, 10 classes in 5 experiences; needs no download."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingExtraError("split-digits", "data", error) from error
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16.0, labels, test_size=0.3, random_state=0, stratify=labels)
    x_train, x_test, y_train, y_test = (torch.from_numpy(part) for part in parts)
    train, test = TensorData(x_train.float(), y_train), TensorData(x_test.float(), y_test)
    return _split("split-digits", train, test, options)


def _split_mnist(options: _Options) -> Benchmark:
    """MNIST, 10 classes in 5 experiences."""
    return _split("split-mnist", *_mnist(), options)


def _permuted_mnist(options: _Options) -> Benchmark:
    """MNIST under 10 (or more) fixed random permutations of its pixels."""
    if options.class_order is not None or options.sizes is not None:
        raise ValueError("permuted-mnist has all classes in every experience: class_order and sizes do not fit it")
    count = 10 if options.n_experiences is None else options.n_experiences
    return permuted("permuted-mnist", *_mnist(), count, seed=options.seed or 0, task_labels=options.task_labels)


_CATALOG: dict[str, Builder] = {
    "split-digits": _split_digits,
    "split-mnist": _split_mnist,
    "permuted-mnist": _permuted_mnist,
}


def _mnist() -> tuple[TensorData, TensorData]:
    loaded = _load("ylecun/mnist", "mnist")
    return _images(loaded, "train"), _images(loaded, "test")


def _images(loaded: Any, split: str) -> TensorData:
    if split not in loaded or not {"image", "label"} <= set(loaded[split].column_names):
        raise DataUnavailableError(f"the data found for MNIST has no split {split!r} with columns 'image' and 'label'")
    columns = loaded[split].with_format("numpy")
    pixels, labels = torch.from_numpy(columns["image"][:]), torch.from_numpy(columns["label"][:])
    return TensorData((pixels.float() / 255.0).unsqueeze(1), labels)


def _load(repository: str, folder: str) -> Any:
    """A Hugging Face dataset: from ``$RWALK_DATA_DIR/folder`` if that is set, else from the hub or its cache."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(repository, "data", error) from error
    root = os.environ.get(DATA_DIR)
    source = str(Path(root, folder)) if root else repository
    if root and not Path(source).is_dir():
        raise DataUnavailableError(
            f"no folder {source}: {DATA_DIR}={root} should hold {folder}/ with the files of {repository} "
            f"(unset {DATA_DIR} to download it)"
        )
    try:
        with _quiet(datasets):
            return datasets.load_dataset(source)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataUnavailableError(
            f"cannot load {repository} from {'the hub' if source == repository else source} ({_first_line(error)}); "
            f"set {DATA_DIR} to a folder that holds {folder}/ with its files"
        ) from error


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """No progress bars and no line for each retry; what went wrong is said once, in the error."""
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "datasets")]
    levels, bars = [logger.level for logger in loggers], datasets.is_progress_bar_enabled()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
