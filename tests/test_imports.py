"""What ``import rwalk`` costs."""

import json
import subprocess
import sys

import pytest

import rwalk
import rwalk.training

PROGRAM = """
import json, sys
import torch, safetensors.torch
before = set(sys.modules)
import rwalk
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def run(program: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)


def test_importing_loads_nothing_beyond_torch_safetensors_and_itself():
    loaded = json.loads(run(PROGRAM).stdout)
    foreign = [name for name in loaded if name.split(".")[0] not in {"rwalk", *sys.stdlib_module_names}]
    assert foreign == []
    assert "rwalk.core.regularizer" in loaded
    assert "rwalk.training" not in loaded


def test_importing_prints_nothing():
    result = run("import rwalk")
    assert (result.stdout, result.stderr) == ("", "")


def test_importing_leaves_torch_and_logging_as_they_were():
    program = """
import logging, torch
def world():
    return (torch.get_default_dtype(), torch.get_num_threads(), torch.initial_seed(), torch.is_grad_enabled(),
            logging.getLogger().level, list(logging.getLogger().handlers), logging.getLogger("rwalk").level)
before = world()
import rwalk
assert world() == before, (before, world())
assert torch.equal(torch.rand(2), torch.manual_seed(before[2]) and torch.rand(2))
"""
    run(program)


def test_every_public_name_exists():
    assert all(hasattr(rwalk, name) for name in rwalk.__all__)
    assert set(rwalk.__all__) <= set(dir(rwalk))
    with pytest.raises(AttributeError, match="'rwalk' has no attribute 'RWalkPlugins'"):
        rwalk.RWalkPlugins  # noqa: B018


def test_the_plugin_comes_with_the_training_loop_when_it_is_asked_for():
    loaded = json.loads(
        run(PROGRAM.replace("import rwalk", "from rwalk import RWalk, RWalkConfig, RWalkPlugin")).stdout
    )
    foreign = [name for name in loaded if name.split(".")[0] not in {"rwalk", *sys.stdlib_module_names}]
    assert foreign == []
    assert "rwalk.training" in loaded
    assert rwalk.RWalkPlugin is rwalk.training.RWalkPlugin
