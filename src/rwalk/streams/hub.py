"""Hugging Face datasets: from the hub, its cache, or a folder on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rwalk.errors import DataUnavailableError, MissingExtraError

__all__ = ["DATA_DIR", "load_folder", "load_repository"]

DATA_DIR = "RWALK_DATA_DIR"


def load_repository(repository: str, folder: str, config: str | None = None) -> Any:
    """All splits of a dataset: from ``$RWALK_DATA_DIR/folder`` if that is set, else from the hub or its cache.

    Args:
        repository: Its name on the hub, ``owner/name``.
        folder: Where it lies under ``RWALK_DATA_DIR``, with the files of the repository.
        config: Which of its configurations, for a repository that has several.

    Returns:
        A ``datasets.DatasetDict``.

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

    Args:
        folder: Holds files in the hub's layout (parquet, csv or json, named by split), images in
            ``split/class/``, or what ``save_to_disk`` wrote.
        config: Which of its configurations, where it has several.

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
