"""Without a usable compiler or cache folder RWalk goes on in eager code and says why, once; else it builds once."""

import os
import platform
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from core.kernels import needs_compiler
from rwalk import RWalk, RWalkConfig, RWalkError
from rwalk.core import native
from rwalk.core.native import build, fused

SOURCE = "int answer(void) { return 42; }"
HALF_WRITTEN = 'for last; do :; done\necho half > "$last"\necho "kernels.c:1: too modern" >&2\nexit 1'


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Path:
    """The cache folder of a new process on a new machine."""
    monkeypatch.setenv("RWALK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(fused, "library", cache(fused.library.__wrapped__))
    monkeypatch.setattr(native, "_told", set())
    return tmp_path / "cache"


def compiler(patch, tmp_path, script, head="#!/bin/sh\n") -> None:
    path = tmp_path / "my-cc"
    path.write_text(head + script)
    path.chmod(0o755)
    patch.setenv("CC", str(path))


def no_such_compiler(patch, tmp_path):
    patch.setenv("CC", "/nonexistent/cc -O1")
    return "CC='/nonexistent/cc' is not on the PATH"


def no_compiler(patch, tmp_path):
    patch.setenv("PATH", str(tmp_path))
    return r"no C compiler \(cc, gcc, clang\) on the PATH"


def failing(patch, tmp_path):
    compiler(patch, tmp_path, HALF_WRITTEN)
    return "my-cc failed: kernels.c:1: too modern"


def failing_in_another_alphabet(patch, tmp_path):
    compiler(patch, tmp_path, r"printf 'na\377ve' >&2; exit 1")
    return "my-cc failed: na.*ve"


def slow(patch, tmp_path):
    compiler(patch, tmp_path, "exec sleep 60")
    patch.setattr(build, "TIMEOUT", 0.1)
    return "my-cc took longer than 0 s"


def no_program(patch, tmp_path):
    compiler(patch, tmp_path, "\x7fELF", head="")
    return "cannot be stored or loaded: .*Exec format"


def unwritable(patch, tmp_path):
    (tmp_path / "file").touch()
    patch.setenv("RWALK_CACHE_DIR", str(tmp_path / "file" / "cache"))
    return "cannot be stored or loaded: .*file"


def foreign(patch, tmp_path):
    user = os.getuid()
    patch.setattr(os, "getuid", lambda: user + 1)
    return "belongs to another user: set RWALK_CACHE_DIR"


def open_to_everyone(patch, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    return "is writable by everyone: set RWALK_CACHE_DIR"


def open_to_its_group(patch, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o770)
    return "is writable by its group: set RWALK_CACHE_DIR"


def linked(patch, tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    return "cache is a link, or not what belongs there: set RWALK_CACHE_DIR"


def homeless(patch, tmp_path):
    def home():
        raise RuntimeError("Could not determine home directory.")

    patch.delenv("RWALK_CACHE_DIR")
    patch.delenv("XDG_CACHE_HOME", raising=False)
    patch.setattr(Path, "home", home)
    return "this user has no home folder: set RWALK_CACHE_DIR"


def empty_home(patch, tmp_path):
    patch.delenv("RWALK_CACHE_DIR")
    patch.delenv("XDG_CACHE_HOME", raising=False)
    patch.setenv("HOME", "")
    return "this user has no home folder: set RWALK_CACHE_DIR"


def on_windows(patch, tmp_path):
    patch.setattr(platform, "system", lambda: "Windows")
    return "the fused kernels are not built on Windows, whose compilers take other flags"


OBSTACLES = [no_such_compiler, no_compiler, failing, failing_in_another_alphabet, slow, no_program]
OBSTACLES += [unwritable, foreign, open_to_everyone, open_to_its_group, linked, homeless, empty_home, on_windows]


def trained(backend, dtype=torch.float32, steps=3):
    torch.manual_seed(0)
    model = nn.Linear(3, 2).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(delta_t=2, backend=backend))
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(1, 3, dtype=dtype)).square().sum().backward()
        optimizer.step()
    rwalk.consolidate()
    return rwalk


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_auto_takes_eager_code_and_says_why_once(obstacle, folder, monkeypatch, tmp_path, caplog):
    expected = trained("eager").importances()
    caplog.set_level("INFO", logger="rwalk")
    reason = obstacle(monkeypatch, tmp_path)
    for rwalk in (trained("auto"), trained("auto")):
        assert rwalk.backend == "eager"
        assert torch.equal(rwalk.importances()["weight"], expected["weight"])
    (said,) = [record for record in caplog.records if record.name == "rwalk.core.native"]
    assert said.levelname == "INFO"
    caplog.clear()
    with pytest.raises(RWalkError, match=f"backend='fused': .*{reason}.*; take backend='auto' or 'eager'"):
        trained("fused")
    assert not caplog.records
    assert said.message.startswith("backend='auto' takes eager code: ")
    assert not folder.exists() or not list(folder.iterdir())


def test_dtypes_without_kernels_are_done_in_eager_code(folder, caplog):
    caplog.set_level("INFO", logger="rwalk.core.native")
    assert trained("auto", torch.float16).backend == trained("auto", torch.float16).backend == "eager"
    assert [record.message for record in caplog.records] == [
        "backend='auto' takes eager code: there are no fused kernels for float16 parameters"
    ]
    with pytest.raises(RWalkError, match="no fused kernels for float16"):
        trained("fused", torch.float16)
    assert not folder.exists()


@needs_compiler
@pytest.mark.parametrize("lacking", ["-fopenmp", "-march=native", "-fopenmp -march=native"])
def test_a_compiler_without_openmp_or_native_code_makes_do(lacking, folder, monkeypatch, tmp_path):
    real = " ".join(build._compiler())
    refused = "|".join(lacking.split())
    compiler(
        monkeypatch,
        tmp_path,
        f'for each; do case "$each" in {refused}) echo "error: no $each" >&2; exit 1;; esac; done\nexec {real} "$@"',
    )
    assert build.load_library(SOURCE).answer() == 42


@needs_compiler
@pytest.mark.parametrize(
    ("system", "machine", "wanted", "unwanted"),
    [
        ("Linux", "x86_64", {"-march=native", "-fopenmp"}, set()),
        ("Darwin", "x86_64", {"-march=native"}, {"-fopenmp"}),
        ("Darwin", "arm64", set(), {"-march=native", "-fopenmp"}),
    ],
)
def test_each_system_gets_its_flags(system, machine, wanted, unwanted, folder, monkeypatch, tmp_path):
    real = " ".join(build._compiler())
    compiler(monkeypatch, tmp_path, f'echo "$@" >> {tmp_path}/said\nexec {real} "$@"')
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert build.load_library(SOURCE).answer() == 42
    (said,) = (tmp_path / "said").read_text().splitlines()
    assert wanted <= set(said.split())
    assert not unwanted & set(said.split())


@needs_compiler
@pytest.mark.parametrize("named", ["RWALK_CACHE_DIR", "XDG_CACHE_HOME"])
def test_an_empty_cache_variable_is_one_that_is_not_set(named, folder, monkeypatch, tmp_path):
    monkeypatch.delenv("RWALK_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(named, "")
    assert build.cache_folder() == tmp_path / ".cache" / "rwalk"
