"""What belongs to a window, and how it is measured: no movement at all, a task's length, a parameter that joins."""

import pytest
import torch
from torch import nn

from core.kernels import needs_compiler
from reference.problems import assert_same_state
from rwalk import RWalk, RWalkConfig

BACKENDS = ["eager", pytest.param("fused", marks=needs_compiler)]
both = pytest.mark.parametrize("backend", BACKENDS)


@both
def test_where_nothing_moved_each_dtype_has_its_own_least_damping(backend):
    model = nn.ParameterDict({"a": nn.Parameter(torch.ones(1).double()), "b": nn.Parameter(torch.ones(1))})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = {"damping_scale": "relative", "fisher_in_score": "window_start", "delta_t": 2}
    rwalk = RWalk(model, optimizer, RWalkConfig(backend=backend, **settings), attach=False)
    for step in range(2):
        model["a"].grad = torch.ones(1).double()
        model["b"].grad = torch.ones(1) if step == 0 else None
        rwalk.before_step()
        optimizer.step()
        rwalk.after_step()
    assert rwalk.importances("score")["a"].item() > 1e200
    assert 0 < rwalk.importances("score")["b"].item() < 1e38


@both
def test_a_window_as_long_as_a_task_keeps_its_digits(backend):
    random = torch.Generator().manual_seed(0)
    model = nn.ParameterDict({"p": nn.Parameter(torch.ones(64))})
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    rwalk, expected = RWalk(model, optimizer, RWalkConfig(delta_t=None, backend=backend)), torch.zeros(64).double()
    for _ in range(1500):
        model["p"].grad = 0.1 + torch.randn(64, generator=random)
        before = model["p"].detach().double()
        optimizer.step()
        expected += model["p"].grad.double() * (before - model["p"].detach().double())
    found = rwalk.state_dict()["parameters"]["p"]["loss_change"].double()
    assert float((found / expected - 1).abs().max()) < 3e-6


@both
def test_a_parameter_that_joins_has_no_part_in_the_window_before(backend):
    found = []
    for looks in (False, True):
        model = nn.ParameterDict({name: nn.Parameter(torch.ones(1).double()) for name in "ab"})
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rwalk = RWalk(model, optimizer, RWalkConfig(delta_t=1, damping_scale="relative", backend=backend))
        for gradients in ({"a": 0.5}, {"a": -0.6, "b": 0.2}, {"b": 0.1}):
            for name, parameter in model.items():
                parameter.grad = torch.full_like(parameter, gradients[name]) if name in gradients else None
            optimizer.step()
            if looks:
                rwalk.settle()
        found.append(rwalk.state_dict())
    assert_same_state(*found)


def test_an_open_window_is_scored_by_the_fisher_of_its_walk():
    scores = []
    for protects in (False, True):
        torch.manual_seed(0)
        model = nn.Linear(4, 3).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rwalk = RWalk(model, optimizer, RWalkConfig(delta_t=10))
        for _ in range(7):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.randn(6, 4).double()), torch.arange(6) % 3).backward()
            optimizer.step()
        if protects:
            rwalk.protect([torch.randn(6, 4).double()])
        else:
            rwalk.consolidate()
        scores.append(rwalk.importances("score"))
    for name, score in scores[0].items():
        torch.testing.assert_close(scores[1][name], score)
