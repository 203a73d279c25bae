"""Without a usable compiler or cache folder RWalk goes on in eager code and says why, once; else it builds once."""

import os
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from rwalk import RWalk, RWalkConfig, RWalkError
from rwalk.core import native
from rwalk.core.native import build, fused

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


def homeless(patch, tmp_path):
    def home():
        raise RuntimeError("Could not determine home directory.")

    patch.delenv("RWALK_CACHE_DIR")
    patch.delenv("XDG_CACHE_HOME", raising=False)
    patch.setattr(Path, "home", home)
    return "this user has no home folder: set RWALK_CACHE_DIR"


OBSTACLES = [no_such_compiler, no_compiler, failing, failing_in_another_alphabet, slow, no_program]
OBSTACLES += [unwritable, foreign, open_to_everyone, homeless]


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
