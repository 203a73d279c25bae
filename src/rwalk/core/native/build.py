"""From C source to a loaded library: compiled once a machine, kept in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["BuildError", "cache_folder", "load_library"]

log = logging.getLogger(__name__)

# No contraction to fused multiply-adds: each operation rounds as torch's own do.
FLAGS = ("-O3", "-ffp-contract=off", "-std=gnu11", "-shared", "-fPIC")
#: What makes it faster, and not every compiler has: clang often comes without OpenMP's library.
EXTRAS = (("-march=native", "-fopenmp"), ("-march=native",), ())
TIMEOUT = 120.0


class BuildError(Exception):
    """Why there is no library; the message says it in one line."""


def load_library(source: str) -> ctypes.CDLL:
    """Compile C source, unless an earlier run has, and load it.

    The compiler is ``$CC``, or ``cc``, ``gcc`` or ``clang``. Several processes may do this at once.

    Args:
        source: A C program.

    Raises:
        BuildError: No compiler, it fails, or the library cannot be loaded.
    """
    compiler, extras = _compiler(), _extras()
    key = hashlib.sha256(repr([source, compiler, FLAGS, extras, _processor()]).encode()).hexdigest()[:24]
    try:
        folder = cache_folder()
        for library in folder.glob(f"kernels-{key}-*.so"):
            try:
                if library == _named(library, folder, key):
                    return ctypes.CDLL(str(library))
                reason = "its content is not what was written"  # running it might end the process
            except OSError as error:
                reason = str(error)
            log.info("compiling the fused kernels anew, %s cannot be loaded: %s", library, reason)
            with suppress(OSError):
                library.unlink()
        started = time.perf_counter()
        library = _compile(compiler, extras, source, folder, key)
        log.info("compiled the fused kernels in %.1f s: %s", time.perf_counter() - started, library)
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise BuildError(f"the compiled kernels cannot be stored or loaded: {error}") from error


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``$RWALK_CACHE_DIR``, or ``rwalk`` in the user's cache folder.

    Raises:
        OSError: It cannot be made, or other users can put libraries there, which are not to be trusted.
    """
    base = os.environ.get("RWALK_CACHE_DIR")
    if not base:
        base = str(Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "rwalk")
    folder = Path(base)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if hasattr(os, "getuid"):
        found = folder.stat()
        if found.st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user: set RWALK_CACHE_DIR to a folder of your own")
        if found.st_mode & 0o002:
            raise PermissionError(f"{folder} is writable by everyone: set RWALK_CACHE_DIR to a folder of your own")
    return folder


def _home() -> Path:
    none = FileNotFoundError("this user has no home folder: set RWALK_CACHE_DIR")
    if os.environ.get("HOME") == "":  # Python takes it for the root folder
        raise none
    try:
        return Path.home()
    except RuntimeError:  # a user without an entry in the system's list, as in some containers
        raise none from None


def _extras() -> tuple[tuple[str, ...], ...]:
    """Which flags to try beyond ``FLAGS``, the most first.

    A Mac's clang has no OpenMP, and torch there brings one that must not meet another; on its ARM processors some
    versions refuse ``-march=native``, without which they make the same vectors.
    """
    if platform.system() != "Darwin":
        return EXTRAS
    return EXTRAS[1:] if platform.machine() == "x86_64" else EXTRAS[2:]


def _compiler() -> list[str]:
    if platform.system() == "Windows":
        raise BuildError("the fused kernels are not built on Windows, whose compilers take other flags")
    named = os.environ.get("CC", "").split()
    for candidate in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        path = shutil.which(candidate[0])
        if path is not None:
            return [path, *candidate[1:]]
    wanted = f"CC={named[0]!r} is not on the PATH" if named else "no C compiler (cc, gcc, clang) on the PATH"
    raise BuildError(wanted)


def _compile(compiler: list[str], extras: tuple[tuple[str, ...], ...], source: str, folder: Path, key: str) -> Path:
    """Write the library under a name of its own and move it into place, so that nobody sees half of one."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".building-") as aside:
        program, library = Path(aside) / "kernels.c", Path(aside) / "kernels.so"
        program.write_text(source, encoding="utf-8")
        complaints = []
        for extra in extras:
            command = [*compiler, *FLAGS, *extra, str(program), "-o", str(library)]
            try:
                done = subprocess.run(command, capture_output=True, errors="replace", timeout=TIMEOUT, check=False)
            except subprocess.TimeoutExpired:
                raise BuildError(f"{compiler[0]} took longer than {TIMEOUT:.0f} s") from None
            if done.returncode == 0:
                return library.replace(_named(library, folder, key))
            said = done.stderr.strip().splitlines() or ["no message"]
            complaints.append(next((line for line in said if "error" in line), said[0]))
            log.debug("%s fails with %s: %s", compiler[0], " ".join(extra), complaints[-1])
        raise BuildError(f"{compiler[0]} failed: {complaints[-1]}")


def _named(library: Path, folder: Path, key: str) -> Path:
    """Where a library belongs, by what it was made from and by what is in it."""
    return folder / f"kernels-{key}-{hashlib.sha256(library.read_bytes()).hexdigest()[:24]}.so"


def _processor() -> str:
    """What ``-march=native`` depends on: a cache may be shared by machines of several kinds."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    first = text.split("\n\n", maxsplit=1)[0].splitlines()
    kept = [line for line in first if line.split(":")[0].strip() in ("model name", "flags", "Features", "CPU part")]
    return "\n".join([platform.machine(), *kept])
