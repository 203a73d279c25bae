"""Triton's kernels: on a GPU, or run in Python on the CPU, slowly, but the same code. Without Triton tests skip."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from unittest.mock import patch

import pytest
import torch

from rwalk.core import native, tracking
from rwalk.core.native import argument

#: Where the kernels are tested: on the GPU if there is one.
PLACE = "cuda" if torch.cuda.is_available() else "cpu"
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@contextmanager
def triton_kernels() -> Iterator[None]:
    """Have the Triton kernels serve parameters in ``PLACE``: by nature on a GPU, interpreted on the CPU."""
    if PLACE != "cpu":
        yield
        return
    with patch.dict(os.environ, TRITON_INTERPRET="1"):  # read when the kernels are defined, once a process
        assert native.device.is_interpreted()
        with (
            patch.object(native, "compiled_for", lambda bucket: (native.TRITON, native.device.why_not(bucket))),
            patch.object(tracking, "is_accelerator", lambda device: True),
            patch.multiple(argument, CHUNK=1024, BLOCK=1024),  # less to do in turn
        ):
            yield
