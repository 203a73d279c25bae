"""Steps that lead to weights that are not finite, which are then put back: the walk knows nothing of them."""

import copy
import math

import pytest
import torch
from torch import nn

from core.kernels import needs_compiler
from core.triton_interpreter import PLACE, needs_triton, triton_kernels
from reference.problems import batches, tanh_net
from rwalk import RWalk, RWalkConfig, RWalkError

BACKENDS = ["eager", pytest.param("fused", marks=needs_compiler)]
LOST = [math.nan, math.inf, -math.inf]


def walked(backend, **settings):
    torch.manual_seed(0)
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=0.5, backend=backend, damping=1e-3, **settings))

    def train(count, task):
        for x, y in batches(task, count):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()

    return model, rwalk, train


def lose(model, value):
    with torch.no_grad():
        model[0].weight[0, 0] = value


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("settings", [{"delta_t": 1}, {"delta_t": 5}, {"delta_t": 5, "rectify": "task"}])
@pytest.mark.parametrize("before", [3, 4, 5])
@pytest.mark.parametrize("backend", BACKENDS)
def test_they_spoil_no_score(backend, before, settings, lost):
    """Though the window closes where they are lost, and nobody says that they are put back."""
    model, rwalk, train = walked(backend, **settings)
    train(20, 0)
    rwalk.consolidate()
    train(before, 1)
    good = copy.deepcopy(model.state_dict())
    lose(model, lost)
    train(2, 2)  # of which no gradient is finite
    assert rwalk.skipped >= 1
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(good[name])
    train(20, 3)
    rwalk.consolidate()
    found = rwalk.importances()
    assert rwalk.tasks == 2
    assert all(bool(value.isfinite().all()) for value in found.values())
    assert bool(found["0.weight"].any())


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_weights_are_scored_as_if_none_were_lost(backend):
    scores = []
    for lost in (None, math.nan):
        model, rwalk, train = walked(backend, delta_t=1)
        train(6, 0)
        kept = model[0].weight.detach().clone()
        if lost is not None:
            lose(model, lost)
        rwalk.settle()
        with torch.no_grad():
            model[0].weight.copy_(kept)
        scores.append(rwalk.importances("score"))
    for name, value in scores[0].items():
        same = torch.ones_like(value, dtype=torch.bool)
        if name == "0.weight":
            same[0, 0] = False
        assert torch.equal(scores[1][name][same], value[same])


@needs_triton
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # masked elements of 0 / 0
@pytest.mark.parametrize("delta_t", [1, 3])
def test_the_kernels_for_gpus_do_so_too(delta_t):
    states = []
    for backend in ("eager", "fused"):
        parameter = nn.Parameter(torch.ones(5, device=PLACE))
        optimizer = torch.optim.SGD([parameter], lr=0.1)
        model = nn.ParameterDict({"p": parameter})
        config = RWalkConfig(backend=backend, delta_t=delta_t, damping=1e-3)
        with triton_kernels():
            rwalk = RWalk(model, optimizer, config)
            for step in range(6):
                parameter.grad = torch.linspace(-1.0, 1.0, 5, device=PLACE)
                optimizer.step()
                if step == 2:
                    parameter.data[1:3] = torch.tensor([math.nan, math.inf], device=PLACE)
                if step == 3:
                    parameter.data[1:3] = 0.5
            rwalk.settle()
        states.append(rwalk.importances("score")["p"])
    assert bool(states[0].isfinite().all())
    torch.testing.assert_close(states[1], states[0], rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("how", ["consolidate", "protect"])
def test_a_task_cannot_end_at_them(how):
    model, rwalk, train = walked("eager")
    train(12, 0)
    rwalk.consolidate()
    train(12, 1)
    before = rwalk.importances()
    fisher = rwalk.importances("fisher")
    good = model[0].weight.detach().clone()
    lose(model, math.nan)
    x = torch.randn(4, 3, dtype=torch.float64)
    with pytest.raises(RWalkError, match="not finite"):
        rwalk.consolidate() if how == "consolidate" else rwalk.protect([x], likelihood="gaussian")
    with torch.no_grad():
        model[0].weight.copy_(good)
    assert rwalk.tasks == 1
    for kind, kept in (("penalty", before), ("fisher", fisher)):
        found = rwalk.importances(kind)
        assert all(torch.equal(value, found[name]) for name, value in kept.items())
    rwalk.consolidate()
    assert rwalk.tasks == 2


@pytest.mark.parametrize("seen", [False, True])
def test_an_average_begins_anew_after_them(seen, tmp_path):
    """Whether or not a gradient was taken there, which shows them."""
    model, rwalk, train = walked("eager", anchor_at="average", average_every=1)
    train(6, 0)
    good = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    lose(model, math.nan)
    train(2, 1) if seen else rwalk.settle()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(good[name])
    train(6, 2)
    if seen:
        rwalk.save(tmp_path / "state.safetensors")
    rwalk.consolidate()
    anchors = rwalk.anchors()
    assert all(bool(value.isfinite().all()) for value in anchors.values())
    off = (anchors["0.weight"] - model[0].weight.detach()).abs()
    assert float(off[0, 0]) <= float(off.max()) < 0.5
