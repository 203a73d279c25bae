"""What every test shares: one thread, and property tests that pick the same examples on every run."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("fixed", deadline=None, max_examples=100, derandomize=True, database=None)
settings.register_profile("few", deadline=None, max_examples=8, derandomize=True, database=None)
settings.register_profile("explore", deadline=None, max_examples=1000, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(autouse=True)
def _own_precision() -> Iterator[None]:
    """A test's precision is its own: transformers 4 leaves it in the environment, where Accelerate takes it from."""
    before = os.environ.get("ACCELERATE_MIXED_PRECISION")
    yield
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
    if before is not None:
        os.environ["ACCELERATE_MIXED_PRECISION"] = before


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """What tests share is imported by them, in processes of its own by some: not to be searched for doctests here."""
    if os.name == "nt" and collection_path.parts[-2:] == ("tests", "processes"):
        return True  # gloo and process groups there are not what these tests launch
    helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return True if helper and Path(__file__).parent in collection_path.parents else None
