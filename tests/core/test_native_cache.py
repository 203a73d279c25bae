"""Kernels are compiled once a machine, whatever changes in training, by however many processes."""

import logging
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from core.kernels import needs_compiler
from rwalk import RWalk, RWalkConfig
from rwalk.core import replacing
from rwalk.core.native import build, fused

SOURCE = "int answer(void) { return 42; }"
IN_A_PROCESS = """
import sys
from rwalk.core.native.build import load_library
sys.stdin.readline()
print(load_library("int answer(void) { return 42; }").answer())
"""

pytestmark = needs_compiler


@pytest.fixture
def folder(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("RWALK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def builds(monkeypatch, folder) -> list[Path]:
    """What has been compiled since a new process began."""
    compiled, really = [], build._compile
    monkeypatch.setattr(fused, "library", cache(fused.library.__wrapped__))

    def counted(*arguments):
        compiled.append(really(*arguments))
        return compiled[-1]

    monkeypatch.setattr(build, "_compile", counted)
    return compiled


def run(config, lr=0.1, steps=5, dtype=torch.float32, grows=False):
    model = nn.ParameterDict({"p": nn.Parameter(torch.ones(3, 2, dtype=dtype))})
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    rwalk = RWalk(model, optimizer, config.replace(backend="fused"))
    for _ in range(2):
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr / (1 + step)
            model["p"].grad = torch.ones_like(model["p"])
            optimizer.step()
        rwalk.consolidate()
        if grows:
            model["p"].data = torch.cat([model["p"].data, model["p"].data[:1]])
    assert rwalk.backend == "fused"


def test_nothing_that_changes_in_training_compiles_anew(builds, monkeypatch):
    run(RWalkConfig())
    assert len(builds) == 1
    for config in (
        RWalkConfig(ewc_lambda=7.0, ewc_alpha=0.1, alpha_warmup=True),
        RWalkConfig(delta_t=1, damping=0.1),
        RWalkConfig(delta_t=3, damping_scale="relative", distance="euclidean", rectify="window"),
        RWalkConfig(penalty="proximal", fisher_in_score="window_start", distance_factor=1.0),
        RWalkConfig.facil(fisher_source="step"),
    ):
        run(config, lr=0.02, steps=8, grows=True)
    assert len(builds) == 1
    monkeypatch.setattr(fused, "library", cache(fused.library.__wrapped__))  # the next process
    run(RWalkConfig())
    assert len(builds) == 1
    run(RWalkConfig(), dtype=torch.float64)
    run(RWalkConfig(state_dtype="bfloat16"))
    assert len(set(builds)) == len(builds) == 3


def cut_short(content):
    """As a crash or a full disk may leave it: loading it would end the process (SIGBUS) or fail."""
    return content[: len(content) // 2]


def one_byte_other(content):
    half = len(content) // 2
    return content[:half] + bytes([content[half] ^ 0xFF]) + content[half + 1 :]


@pytest.mark.parametrize("damage", [cut_short, one_byte_other, lambda content: b""])
def test_a_damaged_library_is_not_loaded_and_built_anew(folder, damage, caplog, monkeypatch):
    build.load_library(SOURCE)
    (library,) = folder.iterdir()
    whole = library.read_bytes()
    library.unlink()  # which this process has loaded: written over, it would crash as it ends
    library.write_bytes(damage(whole))
    caplog.set_level(logging.INFO, logger="rwalk")
    loaded = []
    monkeypatch.setattr(build.ctypes, "CDLL", lambda path: loaded.append(Path(path).read_bytes()))
    build.load_library(SOURCE)
    (library,) = folder.iterdir()
    assert loaded == [library.read_bytes()] != [whole[:0]]
    assert build._named(library, folder, library.name.split("-")[1]) == library
    (said,) = [record.message for record in caplog.records if "anew" in record.message]
    assert "its content is not what was written" in said
    build.load_library(SOURCE)
    assert len(loaded) == 2
    assert sum("compiled" in record.message for record in caplog.records) == 1


def test_a_library_that_this_machine_does_not_load_is_built_anew(folder, caplog, monkeypatch):
    """Whole, but made by another system that shares the folder."""
    caplog.set_level(logging.INFO, logger="rwalk")
    really = build._named
    with monkeypatch.context() as patch:

        def foreign(library, *rest):
            library.write_bytes(b"another system's")
            return really(library, *rest)

        patch.setattr(build, "_named", foreign)
        with pytest.raises(build.BuildError, match="cannot be stored or loaded"):
            build.load_library(SOURCE)
    (library,) = folder.iterdir()
    assert build.load_library(SOURCE).answer() == 42
    assert library not in folder.iterdir()
    assert "compiling the fused kernels anew" in caplog.text


def make_writable(library):
    library.chmod(0o770)


def make_a_link(library):
    library.rename(library.parent.parent / library.name)
    library.symlink_to(library.parent.parent / library.name)


@pytest.mark.parametrize(("spoil", "said"), [(make_writable, "writable by its group"), (make_a_link, "is a link")])
def test_a_library_that_others_could_have_written_is_built_anew(folder, spoil, said, caplog):
    build.load_library(SOURCE)
    (library,) = folder.iterdir()
    spoil(library)
    caplog.set_level(logging.INFO, logger="rwalk")
    assert build.load_library(SOURCE).answer() == 42
    (record,) = [record.message for record in caplog.records if "anew" in record.message]
    assert said in record
    (library,) = folder.iterdir()
    assert library.stat().st_mode & 0o777 == 0o700
    assert not library.is_symlink()


def test_a_library_without_the_functions_is_built_anew(folder, caplog):
    build.load_library(SOURCE)
    caplog.set_level(logging.INFO, logger="rwalk")
    with pytest.raises(build.BuildError, match="it has no function question"):
        build.load_library(SOURCE, ("answer", "question"))
    assert sum("anew" in record.message for record in caplog.records) == 1


def test_what_dead_processes_were_building_is_removed(folder):
    build.load_library(SOURCE)
    dead = subprocess.run(
        [sys.executable, "-c", "from rwalk.core.replacing import mark; print(mark())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    (folder / f".building-{dead}-x").mkdir()
    alive = folder / f".building-{replacing.mark()}-x"
    alive.mkdir()
    build.load_library(SOURCE)
    assert {path.name for path in folder.iterdir() if path.suffix != ".so"} == {alive.name}


def test_another_compiler_or_source_is_another_library(builds, folder, monkeypatch):
    build.load_library(SOURCE)
    monkeypatch.setenv("CC", "cc -O1")
    build.load_library(SOURCE)
    build.load_library(SOURCE)
    build.load_library(SOURCE.replace("42", "43"))
    assert len(builds) == len(set(builds)) == 3
    assert set(folder.iterdir()) == set(builds)


def test_processes_that_build_at_once_do_not_disturb_each_other(folder):
    running = [
        subprocess.Popen([sys.executable, "-c", IN_A_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate("go\n", timeout=120)[0].strip() for process in running]
    assert answers == ["42", "42"]
    assert [path.suffix for path in folder.iterdir()] == [".so"]
    assert folder.stat().st_mode & 0o077 == 0
