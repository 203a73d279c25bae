"""From C source to a loaded library: compiled once a machine, kept in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rwalk.core.replacing import dead, fsync_folder, mark

__all__ = ["BuildError", "cache_folder", "load_library"]

log = logging.getLogger(__name__)

# No contraction to fused multiply-adds: each operation rounds as torch's own do.
FLAGS = ("-O3", "-ffp-contract=off", "-std=gnu11", "-shared", "-fPIC")
#: What makes it faster, and not every compiler has: clang often comes without OpenMP's library.
EXTRAS = (("-march=native", "-fopenmp"), ("-march=native",), ())
TIMEOUT = 120.0
#: What the names of folders begin with in which something is being built.
BUILDING = ".building-"


class BuildError(Exception):
    """Why there is no library; the message says it in one line."""


def load_library(source: str, functions: Sequence[str] = ()) -> ctypes.CDLL:
    """Compile C source, unless an earlier run has, and load it.

    The compiler is ``$CC``, or ``cc``, ``gcc`` or ``clang``. Several processes may do this at once. What is in the
    cache is loaded if it is the user's own, writable by nobody else, and has the hash that its name gives; else it is
    built anew.

    Args:
        source: A C program.
        functions: What the library has to have.

    Raises:
        BuildError: No compiler, it fails, or the library cannot be loaded.
    """
    compiler, extras = _compiler(), _extras()
    key = hashlib.sha256(repr([source, compiler, FLAGS, extras, _processor()]).encode()).hexdigest()[:24]
    try:
        folder = cache_folder()
        _remove_leftovers(folder)
        for library in folder.glob(f"kernels-{key}-*.so"):
            try:
                return _verified(library, folder, key, functions)
            except OSError as error:
                log.info("compiling the fused kernels anew, %s cannot be loaded: %s", library, error)
            with suppress(OSError):
                library.unlink()
        started = time.perf_counter()
        library = _compile(compiler, extras, source, folder, key)
        log.info("compiled the fused kernels in %.1f s: %s", time.perf_counter() - started, library)
        return _verified(library, folder, key, functions)
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
    _refuse_strangers(folder, folder.lstat(), stat.S_ISDIR)
    return folder


def _verified(library: Path, folder: Path, key: str, functions: Sequence[str]) -> ctypes.CDLL:
    """Load a library, once its owner and its content are what they should be: running another may end the process.

    Raises:
        OSError: They are not; or the system does not load it, or a function is missing.
    """
    _refuse_strangers(library, library.lstat(), stat.S_ISREG)
    if library != _named(library, folder, key):
        raise OSError("its content is not what was written")
    loaded = ctypes.CDLL(str(library))
    for function in functions:
        if not hasattr(loaded, function):
            raise OSError(f"it has no function {function}")
    return loaded


def _refuse_strangers(path: Path, found: os.stat_result, is_right: Callable[[int], bool]) -> None:
    """Make sure that what is there is no link, the user's own, and writable by nobody else.

    Raises:
        PermissionError: It is not: somebody else's code would run.
    """
    own = "set RWALK_CACHE_DIR to a folder of your own"
    if not is_right(found.st_mode):
        raise PermissionError(f"{path} is a link, or not what belongs there: {own}")
    if hasattr(os, "getuid"):
        if found.st_uid != os.getuid():
            raise PermissionError(f"{path} belongs to another user: {own}")
        if found.st_mode & 0o022:
            who = "everyone" if found.st_mode & 0o002 else "its group"
            raise PermissionError(f"{path} is writable by {who}: {own}, or take that right away (chmod go-w)")


def _remove_leftovers(folder: Path) -> None:
    """Remove what processes that are no more were building."""
    for found in folder.glob(f"{BUILDING}*"):
        if dead(found, found.name[len(BUILDING) :]):
            shutil.rmtree(found, ignore_errors=True)


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
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{BUILDING}{mark()}-") as aside:
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
                return _keep(library, _named(library, folder, key))
            said = done.stderr.strip().splitlines() or ["no message"]
            complaints.append(next((line for line in said if "error" in line), said[0]))
            log.debug("%s fails with %s: %s", compiler[0], " ".join(extra), complaints[-1])
        raise BuildError(f"{compiler[0]} failed: {complaints[-1]}")


def _keep(library: Path, place: Path) -> Path:
    """Move a library where it belongs, once it is on the disk; nobody else may change it."""
    library.chmod(0o700)
    with library.open("rb+") as file:
        os.fsync(file.fileno())
    library.replace(place)
    fsync_folder(place.parent)
    return place


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
