"""The examples run as their first lines say, and RWalk at least halves what is forgotten of task A."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LAUNCH = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes=1", "--num_machines=1")
COMMANDS = {
    "plain_pytorch": (),
    "weights_only": (),
    "task_free": (),
    "lightning_fit": (),
    "hf_text_classification": (),
    "hf_causal_lm_lora": (),
    "accelerate_launch": (*LAUNCH, "--mixed_precision=no", "--dynamo_backend=no"),
}


def table(text):
    """Rows of the printed table: (seed or mean, RWalk or not) to the four columns."""
    rows = re.findall(r"^ *(\d+|mean) +(yes|no) +([-\d.]+) +([-\d.]+) +([-\d.]+) +([-\d.]+)$", text, re.MULTILINE)
    return {(seed, protected == "yes"): tuple(map(float, values)) for seed, protected, *values in rows}


@pytest.mark.parametrize("name", COMMANDS)
def test_rwalk_halves_forgetting_at_comparable_accuracy_on_b(name):
    script = EXAMPLES / f"{name}.py"
    assert len(script.read_text().splitlines()) <= 80
    command = [sys.executable, *COMMANDS[name], str(script)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    rows = table(result.stdout)
    seeds = {seed for seed, _ in rows} - {"mean"}
    assert len(seeds) >= 3
    for seed in (*seeds, "mean"):
        without, walked = rows[seed, False], rows[seed, True]
        assert without[2] > 20  # there was something to forget
        assert walked[2] <= 0.5 * without[2]
        assert walked[0] >= without[0] - 1.5
        assert walked[3] >= without[3] - 4.0
    assert rows["mean", True][3] >= rows["mean", False][3] - 3.0
