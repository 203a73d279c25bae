"""Files of every schema there has been are read for ever. They are kept as they were written; never write them anew."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from rwalk import RWalk, StateError
from rwalk.core.files import load_state

FOLDER = Path(__file__).parent / "state_files"
#: schema-1-first by the first rwalk that had files, schema-1 by the last that wrote schema 1.
WHOLE = ["schema-1-first", "schema-1", "schema-2"]


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def loaded(name):
    model = network()
    return RWalk.load(FOLDER / f"{name}.safetensors", model, torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_of_each_schema_holds_what_it_held(name):
    expected = json.loads((FOLDER / f"{name}.json").read_text())
    state = loaded(name).state_dict()
    for key in ("tasks", "steps", "task_steps", "window_steps"):
        assert state[key] == expected[key]
    assert list(state["parameters"]) == list(expected["parameters"])
    for parameter, values in expected["parameters"].items():
        for quantity, value in values.items():
            found = state["parameters"][parameter][quantity]
            assert (found.tolist() if isinstance(found, torch.Tensor) else found) == value
    assert {name: state["config"][name] for name in expected["config"]} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in expected["config"].items()
    }


def test_a_compact_file_is_the_whole_one_rounded():
    whole, compact = loaded("schema-2"), loaded("schema-2-compact")
    assert (compact.tasks, compact.steps, compact.task_steps, compact.window_steps) == (1, 16, 0, 0)
    for name, importance in whole.importances().items():
        torch.testing.assert_close(compact.importances()[name], importance, rtol=0.05, atol=0)
    for name, values in whole.state_dict()["parameters"].items():
        anchor = compact.state_dict()["parameters"][name]["anchor"]
        torch.testing.assert_close(anchor, values["anchor"], rtol=2**-11, atol=2**-20)


@pytest.mark.parametrize("name", [*WHOLE, "schema-2-compact"])
def test_any_safetensors_library_reads_them(name):
    theirs = load_file(FOLDER / f"{name}.safetensors")
    ours = load_state(FOLDER / f"{name}.safetensors")["parameters"]
    assert len(theirs) == sum(isinstance(value, torch.Tensor) for values in ours.values() for value in values.values())
    for key, value in theirs.items():
        quantity, _, parameter = key.partition("/")
        assert torch.equal(ours[parameter][quantity], value)


@pytest.mark.parametrize("name", ["schema-2", "schema-2-compact"])
def test_a_bit_of_a_file_with_checksums_that_changes_is_noticed(name, tmp_path):
    content = (FOLDER / f"{name}.safetensors").read_bytes()
    path = tmp_path / "state"
    for at in range(0, len(content), 13):
        changed = bytearray(content)
        changed[at] ^= 1 << (at % 8)
        path.write_bytes(changed)
        with pytest.raises(StateError):
            load_state(path)
