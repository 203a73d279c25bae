"""A state saved in one number of processes goes on in another, in mid-window."""

from functools import cache

import pytest
import torch

from processes import jobs, moving
from processes.launching import shared_folder
from processes.problem import distance
from reference.problems import assert_same_state
from rwalk import RWalkConfig
from rwalk.core.files import load_state

pytestmark = jobs.PATIENT

TOLERANCES = {"compact": 3e-2}  # rounded to bfloat16 at random, by an element's place in its process


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return jobs.two(tmp_path_factory)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return jobs.four(tmp_path_factory)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, four):
    return {source: shared_folder(tmp_path_factory, source) for source in ("of-one", "of-four")}


@cache
def alone(name):
    """Without a break, in one process."""
    return moving.go_on(moving.begin(name, "alone"))


def state_in(path):
    """What a file holds, with its config as Python has it and not as JSON."""
    state = load_state(path)
    return {**state, "config": RWalkConfig.from_dict(state["config"]).to_dict()}


def agree(found, expected, tolerance=1e-9):
    distances = distance(found, expected)
    assert all(value <= tolerance for value in distances.values()), distances


@pytest.mark.parametrize("name", ["paper", "agem", "compact"])
def test_four_to_one(folders, four, name):
    run = moving.resume(name, "alone", folders["of-four"])
    assert_same_state(run.rwalk.state_dict(), state_in(folders["of-four"] / f"{name}.safetensors"))
    results = moving.go_on(run)
    agree(results, four.found("moving.sharded")[0][name], TOLERANCES.get(name, 1e-9))
    agree(results, alone(name), TOLERANCES.get(name, 1e-9))


@pytest.mark.parametrize("name", ["paper", "agem"])
def test_four_to_two_and_from_fsdp_to_ddp(folders, two, name):
    for found in two.found("moving.of_four"):
        assert_same_state(found[name]["state"], state_in(folders["of-four"] / f"{name}.safetensors"))
        agree(found[name]["results"], alone(name))


@pytest.mark.parametrize("processes", ["two", "four"])
@pytest.mark.parametrize("name", ["paper", "agem"])
def test_one_to_many(request, folders, processes, name):
    for found in request.getfixturevalue(processes).found("moving.of_one"):
        assert_same_state(found[name]["state"], state_in(folders["of-one"] / f"{name}.safetensors"))
        agree(found[name]["results"], alone(name))


@pytest.mark.parametrize("processes", ["two", "four"])
def test_elements_that_wait_for_their_first_gradient_still_do(request, folders, processes):
    state = state_in(folders["of-one"] / "grown.safetensors")
    assert state["parameters"]["4.weight"]["fresh"].sum() == 5
    grown = moving.go_on(moving.resume("grown", "alone", folders["of-one"]))
    for found in request.getfixturevalue(processes).found("moving.of_one"):
        assert_same_state(found["grown"]["state"], state)
        agree(found["grown"]["results"], grown)


@pytest.mark.parametrize("name", ["paper", "agem"])
def test_torch_saves_what_rwalk_does(folders, name):
    for folder in folders.values():
        assert_same_state(torch.load(folder / f"{name}.pt")["state"], state_in(folder / f"{name}.safetensors"))
