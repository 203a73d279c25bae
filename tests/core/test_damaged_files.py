"""State files and state dicts that are not what they should be."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from core.saved import learned_walk, walk
from reference.problems import assert_same_state, tanh_net, train
from rwalk import RWalk, StateError, inspect_state
from rwalk.core import files as artifact


@pytest.fixture
def learned():
    return learned_walk()


@pytest.fixture
def saved(learned, tmp_path):
    learned[2].save(tmp_path / "state.safetensors")
    return tmp_path / "state.safetensors"


def rewrite(path, change_tensors=lambda tensors: None, change_header=lambda header: None):
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    header, tensors = json.loads(metadata["rwalk"]), load_file(path)
    change_tensors(tensors)
    change_header(header)
    save_file(tensors, path, metadata={"rwalk": json.dumps(header)})


@pytest.mark.parametrize("read", [artifact.load_state, inspect_state])
def test_what_is_not_a_state_file_is_refused(read, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no rwalk state at .*absent"):
        read(tmp_path / "absent")
    for content in (b"", b"not safetensors at all", b"\x80\x02}q\x00."):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(ValueError, match="other is not a safetensors file"):
            read(tmp_path / "other")
    save_file({"weight": torch.ones(2)}, tmp_path / "foreign")
    with pytest.raises(ValueError, match=r"foreign is a safetensors file, but not one that RWalk\.save wrote"):
        read(tmp_path / "foreign")


def test_a_truncated_file_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-40])
    with pytest.raises(ValueError, match="not a safetensors file"):
        artifact.load_state(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.update({"fisher/0.bias": torch.zeros(5)}),
        lambda tensors: tensors.update({"score/0.bias": torch.zeros(1)}),
        lambda tensors: tensors.update({"anchor/2.weight": torch.zeros(4, 2)}),
        lambda tensors: tensors.pop("fisher/0.bias"),
        lambda tensors: tensors.pop("window_start/0.bias"),
        lambda tensors: tensors.update({"fisher/other": torch.zeros(5)}),
        lambda tensors: tensors.update({"nothing": torch.zeros(5)}),
    ],
)
def test_a_file_with_changed_names_or_shapes_is_refused(saved, change):
    rewrite(saved, change_tensors=change)
    model = tanh_net(dtype=torch.float32)
    with pytest.raises(ValueError, match=r"fingerprint|shape|damaged|hold"):
        RWalk.load(saved, model, torch.optim.Adam(model.parameters()))


def test_the_file_itself_is_checked_before_any_model(saved):
    rewrite(saved, change_tensors=lambda tensors: tensors.update({"fisher/0.bias": torch.zeros(5)}))
    with pytest.raises(ValueError, match="fingerprint"):
        artifact.load_state(saved)


def test_a_state_of_another_schema_is_refused(learned):
    state = learned[2].state_dict() | {"schema": 3}
    with pytest.raises(StateError, match="schema 3: this rwalk reads 1 to 2"):
        learned[2].load_state_dict(state)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)], r"'0\.weight' has shape \(4, 3\) in the state .* \(5, 3\)"),
        ([nn.Linear(3, 4), nn.Linear(4, 2)], r"2 parameter\(s\) that this model .*first '2\.bias'"),
    ],
)
def test_a_state_of_another_model_is_refused_and_changes_nothing(learned, layers, message):
    model, optimizer, rwalk = walk(nn.Sequential(*layers))
    train(model, optimizer, 0, 6, torch.float32)
    before = rwalk.state_dict()
    with pytest.raises(ValueError, match=message):
        rwalk.load_state_dict(learned[2].state_dict())
    assert_same_state(rwalk.state_dict(), before)


def test_what_is_not_a_state_dict_is_refused():
    _, _, rwalk = walk()
    with pytest.raises(ValueError, match="not an rwalk state: it has no 'schema'"):
        rwalk.load_state_dict(rwalk.model.state_dict())
