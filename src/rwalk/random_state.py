"""Every generator that a run draws from, as plain values: Python's, numpy's, torch's, and each GPU's."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["random_state", "random_state_kept", "set_random_state"]


def random_state() -> dict[str, Any]:
    """Where the global generators stand; numpy's and GPUs' only where they are in use.

    Returns:
        Tensors and numbers only.

    Example:
        >>> before = random_state()
        >>> drawn = random.random(), torch.rand(1).item()
        >>> set_random_state(before)
        >>> (random.random(), torch.rand(1).item()) == drawn
        True
    """
    version, words, gauss = random.getstate()
    state: dict[str, Any] = {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "torch": torch.get_rng_state(),
    }
    if "numpy" in sys.modules:
        name, keys, *rest = sys.modules["numpy"].random.get_state()
        state["numpy"] = [name, torch.tensor(keys.tolist(), dtype=torch.int64), *rest]
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put the global generators where ``random_state`` found them."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    torch.set_rng_state(state["torch"])
    if "numpy" in state:
        import numpy as np

        name, keys, *rest = state["numpy"]
        np.random.set_state((name, _words(keys), *rest))
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def random_state_kept() -> Iterator[None]:
    """What is drawn inside leaves no trace, also after an error."""
    before = random_state()
    try:
        yield
    finally:
        set_random_state(before)


def _words(keys: Tensor) -> Any:
    import numpy as np

    return np.array(keys.tolist(), dtype=np.uint32)
