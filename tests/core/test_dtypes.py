"""Models of several dtypes, or of a dtype that changes."""

import pytest
import torch
from torch import nn

from reference.naive import NaiveRWalk
from reference.problems import assert_close, assert_same, lists, tanh_net, train, weights
from rwalk import RWalk, RWalkConfig


def anchors(rwalk):
    return {name: values["anchor"] for name, values in rwalk.state_dict()["parameters"].items()}


def test_model_double_midway_keeps_the_history():
    model = tanh_net(dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=1.0, ewc_alpha=0.5))
    train(model, optimizer, 0, 13, torch.float32)
    rwalk.consolidate()
    past, fisher, anchor = rwalk.importances(), rwalk.importances("fisher"), anchors(rwalk)
    model.double()
    assert torch.isfinite(rwalk.penalty())
    train(model, optimizer, 1, 1)
    assert_same(rwalk.importances(), {name: value.double() for name, value in past.items()})
    assert_same(anchors(rwalk), {name: value.double() for name, value in anchor.items()})
    now = rwalk.importances("fisher")
    assert all(bool((now[name] >= 0.5 * fisher[name].double()).all()) for name in fisher)


@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
def test_a_model_of_three_dtypes_keeps_state_in_float32_and_float64(penalty):
    dtypes = {"b16": torch.bfloat16, "f32": torch.float32, "f64": torch.float64}
    model = nn.ParameterDict({name: nn.Parameter(torch.full((4,), 0.5, dtype=d)) for name, d in dtypes.items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=0.5, ewc_alpha=0.5, penalty=penalty))
    slope = torch.tensor([1.0, 0.5, 1.0 + 2**-7, 0.0])  # 1 + 2⁻⁷ is a bfloat16; its square is none
    for _ in range(2):
        for name, dtype in dtypes.items():
            model[name].grad = slope.to(dtype)
        optimizer.step()
        rwalk.consolidate()
    for name, fisher in rwalk.importances("fisher").items():
        assert fisher.dtype is (torch.float64 if name == "f64" else torch.float32)
        assert torch.equal(fisher, slope.to(fisher.dtype) ** 2)
    assert [model[name].dtype for name in dtypes] == list(dtypes.values())
    assert max(float(value.max()) for value in rwalk.importances().values()) <= 2.0
    assert torch.isfinite(rwalk.penalty())
    assert bool((model["b16"][:3] < 0.5).all())


def test_relative_damping_is_one_mean_over_all_dtypes():
    config = RWalkConfig(damping_scale="relative", delta_t=2)
    model = nn.ParameterDict(
        {"f32": nn.Parameter(torch.full((3,), 0.5)), "f64": nn.Parameter(torch.full((2,), 0.5, dtype=torch.float64))}
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
    rwalk, twin = RWalk(model, optimizer, config), NaiveRWalk(config)
    for index in range(6):
        for parameter, slope in zip(model.parameters(), (1.0 + index, 0.25), strict=True):
            parameter.grad = torch.full_like(parameter, slope)
        before, slopes = lists(weights(model)), lists({n: p.grad for n, p in model.named_parameters()})
        optimizer.step()
        twin.observe(slopes, before, lists(weights(model)))
    assert_close(rwalk.importances("score"), twin.score, 1e-5, "score")


@pytest.mark.parametrize("preset", ["paper", "capymoa", "agem"])
def test_a_change_of_dtype_within_a_task_moves_no_anchor_and_no_window(preset):
    model = tanh_net(dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig.preset(preset))
    train(model, optimizer, 0, 13, torch.float32)
    rwalk.consolidate()
    train(model, optimizer, 1, 4, torch.float32)
    before = rwalk.state_dict()["parameters"]
    model.double()
    train(model, optimizer, 1, 1)
    for name, values in rwalk.state_dict()["parameters"].items():
        for quantity in ("anchor", "window_start", "importance"):
            assert torch.equal(values[quantity], before[name][quantity].double()), (name, quantity)


@pytest.mark.parametrize("damping", [None, "machine", 0.25])
@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_damping_does_not_depend_on_the_parameters_dtype(damping, default, dtype):
    expected = {None: 2.0**-23, "machine": torch.finfo(default).eps, 0.25: 0.25}[damping]
    model = nn.ParameterDict({"p": nn.Parameter(torch.zeros(1, dtype=dtype))})
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0**-20)
    rwalk = RWalk(model, optimizer, RWalkConfig(delta_t=1, damping=damping))
    model["p"].grad = torch.full((1,), 2.0**-10, dtype=dtype)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        optimizer.step()
        score = rwalk.importances("score")["p"].item()
    finally:
        torch.set_default_dtype(previous)
    change, distance = 2.0**-40, 0.5 * 2.0**-20 * 2.0**-60
    assert score == pytest.approx(change / (distance + expected), rel=1e-6)
