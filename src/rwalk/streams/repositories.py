"""Datasets by name: those of the catalog, the Hugging Face hub with its cache, and folders on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rwalk.errors import DataUnavailableError, MissingExtraError
from rwalk.streams.data import TensorData
from rwalk.streams.splits import Data

__all__ = ["DATA_DIR", "KNOWN", "Known", "load_digits", "load_folder", "load_repository"]

DATA_DIR = "RWALK_DATA_DIR"


@dataclass(frozen=True)
class Known:
    """A dataset of the catalog, usually split into ``n_experiences``; ``repository`` is its name on the hub.

    ``kind`` is ``images``, ``vectors`` or ``text``; ``label_column`` is named where the repository has several.
    """

    title: str
    n_classes: int
    n_experiences: int
    kind: str = "images"
    repository: str | None = None
    label_column: str | None = None
    test_split: str = "test"


#: By name; under ``RWALK_DATA_DIR`` each lies in a folder of that name.
KNOWN = {
    "digits": Known("scikit-learn's bundled 8×8 digits", 10, 5, kind="vectors"),
    "mnist": Known("MNIST", 10, 5, repository="ylecun/mnist"),
    "fashion-mnist": Known("Fashion-MNIST", 10, 5, repository="zalando-datasets/fashion_mnist"),
    "kmnist": Known("Kuzushiji-MNIST", 10, 5, repository="tanganke/kmnist"),
    "emnist": Known("EMNIST letters", 26, 13, repository="tanganke/emnist_letters"),
    "cifar10": Known("CIFAR-10", 10, 5, repository="uoft-cs/cifar10"),
    "cifar100": Known("CIFAR-100", 100, 10, repository="uoft-cs/cifar100", label_column="fine_label"),
    "tiny-imagenet": Known("Tiny ImageNet", 200, 10, repository="zh-plus/tiny-imagenet", test_split="valid"),
    "ag-news": Known("AG News", 4, 2, kind="text", repository="fancyzhx/ag_news"),
}


def load_digits() -> Data:
    """scikit-learn's digits as vectors of 64 numbers from 0 to 1; 30 % of each class are test data.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as bundled
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingExtraError("digits", "data", error) from error
    images, labels = bundled(return_X_y=True)
    parts = train_test_split(images / 16.0, labels, test_size=0.3, random_state=0, stratify=labels)
    x_train, x_test, y_train, y_test = (torch.from_numpy(part) for part in parts)
    return Data("digits", TensorData(x_train.float(), y_train), TensorData(x_test.float(), y_test))


def load_repository(repository: str, folder: str, config: str | None = None) -> Any:
    """All splits of a dataset: from ``$RWALK_DATA_DIR/folder`` if that is set, else from the hub or its cache.

    ``repository`` is its name on the hub, ``folder`` where it lies under ``RWALK_DATA_DIR``, ``config`` which of its
    configurations, where it has several.

    Raises:
        MissingExtraError: ``datasets`` is not installed.
        DataUnavailableError: The folder is missing or holds no dataset, or the hub is out of reach or has no such one.
    """
    root = os.environ.get(DATA_DIR)
    if root and not Path(root, folder).is_dir():
        raise DataUnavailableError(
            f"no folder {Path(root, folder)}: {DATA_DIR}={root} should hold {folder}/ with the files of {repository} "
            f"(unset {DATA_DIR} to download it)"
        )
    source = str(Path(root, folder)) if root else repository
    where = source if root else "the hub"
    way_out = f"set {DATA_DIR} to a folder that holds {folder}/ with its files"
    return _load(source, config, f"cannot load {repository} from {where}", way_out)


def load_folder(folder: Path, config: str | None = None) -> Any:
    """All splits of a dataset in a local folder.

    It holds files in the hub's layout (parquet, csv or json, named by split), images in ``split/class/``, or what
    ``save_to_disk`` wrote.

    Raises:
        MissingExtraError: ``datasets`` is not installed.
        DataUnavailableError: The folder is no dataset.
    """
    expected = "expected parquet, csv or json files named by split, such as train.parquet, or images in train/CLASS/"
    return _load(str(folder), config, f"{folder} is no dataset that can be read", expected)


def _load(source: str, config: str | None, problem: str, way_out: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(source, "data", error) from error
    saved = Path(source, "dataset_dict.json").is_file()
    try:
        with _quiet(datasets):
            if saved:
                return datasets.load_from_disk(source)
            return datasets.load_dataset(source) if config is None else datasets.load_dataset(source, config)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataUnavailableError(f"{problem} ({_first_line(error)}); {way_out}") from error


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
