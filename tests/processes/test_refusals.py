"""What cannot work under several processes is refused in all of them, and nothing waits for ever."""

import re

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from processes import jobs
from processes.problem import Case, distance, two_tasks
from rwalk import RWalk, RWalkError
from rwalk.core import sharding

pytestmark = jobs.PATIENT


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return jobs.two(tmp_path_factory)


@pytest.mark.parametrize("scale", ["absolute", "relative"])
def test_nan_in_one_shard_leaves_no_trace_in_any_process(two, scale):
    for found in two.found("refusing.not_finite"):
        assert found[f"{scale}: counts"] == (found[f"{scale}: steps"], 1)
        assert found[f"{scale}: same"]


@pytest.mark.parametrize("when", ["all", "one layer", "after a task", "before its end"])
def test_sharding_after_the_optimizer_was_built(two, when):
    for found in two.found("refusing.wrapped_too_late"):
        assert "Wrap the model first, then build the optimizer, then RWalk" in found[when]


@pytest.mark.parametrize("when", ["step", "consolidate"])
def test_state_of_whole_parameters_is_not_cut_to_shards(two, when):
    for found in two.found("refusing.another_layout"):
        assert "0.weight is sharded over processes in another way than when its state was made" in found[when]


def test_a_gradient_that_lies_in_another_way_than_its_parameter(two):
    for found in two.found("refusing.other_gradients"):
        assert "the gradient of 0.weight is spread over processes in another way" in found


def test_a_fisher_from_a_loader_needs_whole_parameters(two):
    for found in two.found("refusing.from_a_loader"):
        assert "fisher_source='loader' needs whole parameters, and 0.weight is sharded" in found


def test_gathered_parameters_that_an_evaluation_leaves_behind_are_seen_through(two):
    for found in two.found("refusing.after_evaluations"):
        assert max(distance(found, two_tasks(Case())).values()) <= 1e-9


def test_shards_in_place_of_the_optimizers_parameters_are_followed(two):
    for found in two.found("refusing.shards_put_in"):
        assert max(distance(found, two_tasks(Case())).values()) <= 1e-9


def test_importances_that_no_optimizer_moves_are_still_whole(two):
    for found in two.found("refusing.parameters_let_go"):
        assert set(found["after"]) == set(found["before"])
        for name, value in found["before"].items():
            assert torch.equal(found["after"][name], value)
            assert torch.equal(found["saved"]["parameters"][name]["importance"], value)


def test_fsdp1_is_refused():
    class Flat(FullyShardedDataParallel):
        def __init__(self, module):
            nn.Module.__init__(self)
            self._fsdp_wrapped_module = module

    plain = nn.Linear(2, 1)
    with pytest.raises(RWalkError, match=r"FSDP1.*fully_shard \(FSDP2"):
        RWalk(nn.Sequential(Flat(plain)), torch.optim.SGD(plain.parameters(), lr=0.1))


def test_a_checkpoint_that_is_read_into_an_empty_state_is_refused(two):
    for found in two.found("refusing.read_into_nothing"):
        assert "the state of 2 steps holds no parameter" in found
        assert "save() the state beside such a checkpoint" in found


def test_an_older_torchs_shards_are_refused_by_name(monkeypatch):
    class Shard(torch.Tensor):
        pass

    sharded = nn.Linear(2, 1)
    sharded.weight = nn.Parameter(sharded.weight.detach().as_subclass(Shard))
    monkeypatch.setattr(sharding, "is_sharded", lambda tensor: isinstance(tensor, Shard))
    monkeypatch.setattr(sharding, "RELEASE", (2, 10))
    optimizer = torch.optim.SGD(sharded.parameters(), lr=0.1)
    with pytest.raises(RWalkError, match=rf"need torch ≥ 2\.11, and this is {re.escape(torch.__version__)}"):
        RWalk(sharded, optimizer)
    plain = nn.Linear(2, 1)
    RWalk(plain, torch.optim.SGD(plain.parameters(), lr=0.1))
