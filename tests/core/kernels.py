"""Whether there is a compiler here for the fused kernels; without one their tests are skipped, and say so."""

import pytest

from rwalk.core.native.build import BuildError, _compiler

try:
    _compiler()
    missing = ""
except BuildError as error:
    missing = str(error)

needs_compiler = pytest.mark.skipif(bool(missing), reason=missing)
