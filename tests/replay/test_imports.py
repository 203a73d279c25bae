"""Exemplars cost nobody anything who does not use them."""

import json
import subprocess
import sys

PROGRAM = """
import json, sys
import torch, safetensors.torch
before = set(sys.modules)
import rwalk
without = [name for name in sys.modules if name.startswith("rwalk.replay")]
import rwalk.replay
print(json.dumps([without, sorted(set(sys.modules) - before)]))
"""


def test_replay_is_loaded_when_asked_for_and_brings_nothing_but_itself():
    result = subprocess.run([sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, check=True)
    without, loaded = json.loads(result.stdout)
    assert without == []
    foreign = [name for name in loaded if name.split(".")[0] not in {"rwalk", *sys.stdlib_module_names}]
    assert foreign == []
    assert "rwalk.replay.samplers" in loaded
