"""No address outlives the call that it was read in: whatever happens to memory between steps, compiled code sees it."""

import copy
import io
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
import torch.multiprocessing
from torch import nn

from core.kernels import needs_compiler
from reference.problems import assert_same_state
from rwalk import RWalk, RWalkConfig, RWalkError

BACKENDS = ["eager", pytest.param("fused", marks=needs_compiler)]
CHANGES = {}


def change(function):
    CHANGES[function.__name__] = function
    return function


@change
def nothing(model, optimizer, rwalk):
    pass


@change
def rwalk_goes_to_another_process(model, optimizer, rwalk):
    ForkingPickler(io.BytesIO()).dump(rwalk)


@change
def state_in_shared_memory(model, optimizer, rwalk):
    for bucket in rwalk._tracker.buckets:
        for flat in bucket.flat.values():
            flat.share_memory_()


@change
def parameters_in_shared_memory(model, optimizer, rwalk):
    model.share_memory()


@change
def data_replaced(model, optimizer, rwalk):
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()


@change
def storage_resized_and_filled_again(model, optimizer, rwalk):
    for parameter in model.parameters():
        kept, storage = parameter.detach().clone(), parameter.untyped_storage()
        bytes_before = storage.nbytes()
        storage.resize_(0)
        junk = torch.full((300, 300), float("nan"))  # takes the memory that became free, perhaps
        storage.resize_(bytes_before)
        parameter.data.copy_(kept)
        del junk


@change
def tensors_swapped(model, optimizer, rwalk):
    for parameter in model.parameters():
        other = nn.Parameter(parameter.detach().clone())
        torch.utils.swap_tensors(parameter, other)


@change
def copied(model, optimizer, rwalk):
    copy.deepcopy(rwalk)


def trained(backend, name, steps=30, **settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 300), nn.Linear(300, 40))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    rwalk = RWalk(model, optimizer, RWalkConfig(backend=backend, ewc_lambda=0.1, **settings))
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        if step in (13, 19, 27):
            CHANGES[name](model, optimizer, rwalk)
        model(torch.full((4, 60), step / 30)).square().mean().backward()
        optimizer.step()
        if step == 16:
            rwalk.consolidate()
    return rwalk.state_dict()


@pytest.mark.parametrize("settings", [{}, {"state_dtype": "bfloat16"}, {"penalty": "proximal", "delta_t": 1}])
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_may_move_between_steps(backend, name, settings):
    assert_same_state(trained(backend, name, **settings), trained(backend, "nothing", **settings))


@needs_compiler
@pytest.mark.parametrize("of", ["parameter", "gradient", "state"])
@pytest.mark.parametrize("left", [0, 8])
def test_memory_that_became_too_small_is_not_touched(of, left):
    model = nn.ParameterDict({"p": nn.Parameter(torch.zeros(100))})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(backend="fused"), attach=False)
    for _ in range(2):
        model["p"].grad = torch.ones(100)
        rwalk.before_step()
        rwalk.after_step()
    tensors = {"parameter": model["p"], "gradient": model["p"].grad, "state": rwalk._tracker.buckets[0].flat["fisher"]}
    tensors[of].untyped_storage().resize_(left)
    with pytest.raises(RWalkError, match="has no memory of its own, or less than its shape says"):
        rwalk.before_step()
