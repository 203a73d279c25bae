"""What a user does with a wheel and an sdist, outside the tree: ``python release/try_out.py dist``.

The wheel is installed with its command, which runs its demonstration. The sdist is unpacked and installed with what
its tests need; they are all collected, and those that are quick are run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

__all__ = ["try_sdist", "try_wheel"]

ROOT = Path(__file__).resolve().parents[1]
BINARIES = "Scripts" if os.name == "nt" else "bin"
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", str(ROOT / "constraints.txt"))
QUICK = ("tests/test_imports.py", "tests/metrics", "tests/models", "tests/benchmarks", "tests/core/test_equations.py")


def try_wheel(wheel: Path, folder: Path) -> None:
    """Install it with the command, and run the demonstration."""
    python = _environment(folder / "wheel")
    _run(folder, python, *PIP, f"{wheel}[cli]")
    _run(folder, python.parent / "rwalk", "list")
    _run(folder, python.parent / "rwalk", "demo")


def try_sdist(sdist: Path, folder: Path) -> None:
    """Install it with what its tests need, and run them where it was unpacked."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (unpacked,) = folder.glob("rwalk-*")
    python = _environment(folder / "sdist")
    _run(unpacked, python, *PIP, f"{sdist}[dev]")
    _run(unpacked, python, "-m", "pytest", "--collect-only", "-qq", "tests", "--ignore", "tests/peers")
    _run(unpacked, python, "-m", "pytest", *QUICK)


def _environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / BINARIES / "python"
    _run(folder, python, *PIP, "torch")
    return python


def _run(folder: Path, program: Path, *arguments: str) -> None:
    print("+", program.name, *arguments, flush=True)
    surroundings = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run([program, *arguments], cwd=folder, env=surroundings, check=True)


if __name__ == "__main__":
    distributions = Path(sys.argv[1]).resolve()
    made = [sorted(distributions.glob(pattern)) for pattern in ("*.whl", "*.tar.gz")]
    if any(len(found) != 1 for found in made):
        listed = ", ".join(file.name for found in made for file in found)
        sys.exit(f"{distributions} holds {listed or 'nothing'}: expected a wheel and an sdist; run `make dist` first")
    with tempfile.TemporaryDirectory() as outside:
        try_wheel(made[0][0], Path(outside))
        try_sdist(made[1][0], Path(outside))
