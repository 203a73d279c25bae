"""The examples run as their first lines say, and RWalk at least halves what is forgotten of task A.

Those that differ in what RWalk is told are judged over all of their seeds. Those that differ in the door, which
``contracts`` compares with the plain loop, are judged by their first seed: they take the longest.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
LAUNCH = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes=1", "--num_machines=1")
ALL = 3
COMMANDS = {  # what is between Python and the script, and how many seeds
    "plain_pytorch": ((), ALL),
    "weights_only": ((), ALL),
    "task_free": ((), ALL),
    "lightning_fit": ((), 1),
    "hf_text_classification": ((), 1),
    "hf_causal_lm_lora": ((), 1),
    "accelerate_launch": ((*LAUNCH, "--mixed_precision=no", "--dynamo_backend=no"), 1),
}


def table(text):
    """Rows of the printed table: (seed or mean, RWalk or not) to the four columns."""
    rows = re.findall(r"^ *(\d+|mean) +(yes|no) +([-\d.]+) +([-\d.]+) +([-\d.]+) +([-\d.]+)$", text, re.MULTILINE)
    return {(seed, protected == "yes"): tuple(map(float, values)) for seed, protected, *values in rows}


@pytest.mark.parametrize("name", COMMANDS)
def test_rwalk_halves_forgetting_at_comparable_accuracy_on_b(name):
    script = EXAMPLES / f"{name}.py"
    assert len(script.read_text().splitlines()) <= 80
    launcher, count = COMMANDS[name]
    command = [sys.executable, *launcher, str(script), *([] if count == ALL else [str(count)])]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    rows = table(result.stdout)
    seeds = {seed for seed, _ in rows} - {"mean"}
    assert len(seeds) == count
    for seed in (*seeds, "mean"):
        without, walked = rows[seed, False], rows[seed, True]
        assert without[2] > 20  # there was something to forget
        assert walked[2] <= 0.5 * without[2]
        assert walked[0] >= without[0] - 1.5
        assert walked[3] >= without[3] - 4.0
    if count == ALL:  # what is lost on B from one seed may be won from another
        assert rows["mean", True][3] >= rows["mean", False][3] - 3.0
