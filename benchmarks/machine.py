"""What was measured, and on what."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["describe_machine", "describe_versions"]

PACKAGES = ("torch", "rwalk", "avalanche-lib", "capymoa")
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def describe_machine() -> dict[str, Any]:
    """Processor, its caches, the memory, and what torch uses of them; what the system does not tell is None."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "l2": _cache(2),
        "l3": _cache(3),
        "memory_gib": _memory(),
        "torch_threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def describe_versions() -> dict[str, str | None]:
    """Python, the compiler and the packages compared; None for what is not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}, "compiler": _compiler()}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str | None:
    lines = _read(Path("/proc/cpuinfo")).splitlines()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or None


def _cache(level: int) -> str | None:
    """Size of the first core's cache on this level, as the system writes it (``1024K``)."""
    for folder in sorted(CACHES.glob("index*")):
        if _read(folder / "level").strip() == str(level):
            return _read(folder / "size").strip() or None
    return None


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _compiler() -> str | None:
    path = next(filter(None, map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))), None)
    if path is None:
        return None
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return next(iter(done.stdout.splitlines()), None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
