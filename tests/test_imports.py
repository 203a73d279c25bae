"""What ``import rwalk`` costs."""

import json
import subprocess
import sys

import pytest

import rwalk
import rwalk.training

PROGRAM = """
import json, sys
import torch
before = set(sys.modules)
import rwalk
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def run(program: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)


def test_importing_loads_nothing_beyond_torch_and_itself():
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


def test_training_and_state_files_need_no_more_than_what_is_installed_with_rwalk(tmp_path):
    program = f"""
import sys
import torch
for name in ("safetensors", "accelerate", "datasets", "sklearn", "pydantic", "filelock"):
    sys.modules[name] = None
from rwalk import RWalk, RWalkPlugin
from rwalk.errors import MissingExtraError
from rwalk.streams import TensorData, class_incremental
from rwalk.training import CheckpointPlugin, Naive
data = TensorData(torch.rand(8, 3), torch.arange(8) % 4)
model, plugin = torch.nn.Linear(3, 4), RWalkPlugin()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
strategy = Naive(model=model, optimizer=optimizer, train_mb_size=4, plugins=[plugin])
strategy.train(class_incremental("toy", data, data, 2).train_stream)
plugin.rwalk.save({str(tmp_path / "state")!r})
assert RWalk.load({str(tmp_path / "state")!r}, model, torch.optim.SGD(model.parameters(), lr=0.1)).tasks == 2
strategy = Naive(model=model, optimizer=optimizer, plugins=[CheckpointPlugin({str(tmp_path)!r}, every=1)])
try:
    strategy.train(class_incremental("toy", data, data, 2).train_stream)
except MissingExtraError as error:
    print(error)
"""
    assert run(program).stdout.strip() == "a checkpoint needs safetensors; install it with: pip install 'rwalk[train]'"
