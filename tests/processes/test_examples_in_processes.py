"""The examples for several processes run as their first lines say, and RWalk at least halves what is forgotten."""

import re
from pathlib import Path

import pytest

from processes.jobs import NO_SHARDS, SHARDS
from processes.launching import ACCELERATE, TORCHRUN, run

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMANDS = {"distributed_ddp": ACCELERATE, "distributed_fsdp": (*TORCHRUN, "--nproc-per-node=2")}
NEEDS_SHARDS = pytest.mark.skipif(not SHARDS, reason=NO_SHARDS)


@pytest.mark.parametrize("name", ["distributed_ddp", pytest.param("distributed_fsdp", marks=NEEDS_SHARDS)])
def test_rwalk_halves_forgetting_at_comparable_accuracy_on_b(name):
    script = EXAMPLES / f"{name}.py"
    assert len(script.read_text().splitlines()) <= 80
    done = run(*COMMANDS[name], script, timeout=200)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^ *(\d|mean) +(no|yes) +(.*)$", done.stdout, re.MULTILINE)
    table = {(seed, walked): [float(value) for value in values.split()] for seed, walked, values in rows}
    assert len(table) == len(rows) == 8  # printed by one process: three seeds and their mean
    without, walked = table["mean", "no"], table["mean", "yes"]
    assert without[2] > 20  # there was something to forget
    assert walked[2] <= 0.5 * without[2]
    assert walked[0] >= without[0] - 1.5
    assert walked[3] >= without[3] - 4.0
