"""A penalty that is too strong for the optimizer's explicit step is told, where it really diverges and only there."""

import pytest
import torch
from torch import nn

from rwalk import RWalk, RWalkConfig
from rwalk.core.equations import largest_stable_curvature

KINDS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "dampened": {"momentum": 0.9, "dampening": 0.5},
    "nesterov": {"momentum": 0.9, "nesterov": True},
}


def learned(lr, config, **kind):
    """One weight with F + s = 2 (the largest), anchored at 0."""
    model = nn.ParameterDict({"p": nn.Parameter(torch.zeros(1).double())})
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, **kind)
    rwalk = RWalk(model, optimizer, config)
    model["p"].grad = torch.ones(1).double()
    optimizer.step()
    rwalk.settle()
    model["p"].data.zero_()
    return model, optimizer, rwalk


@pytest.mark.parametrize("share", [0.97, 1.03])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_told_where_weights_diverge(kind, share, caplog):
    lr = 0.1
    strength = share * largest_stable_curvature(lr, **KINDS[kind]) / (2.0 * 2.0)
    model, optimizer, rwalk = learned(lr, RWalkConfig(ewc_lambda=strength, damping=1e-9), **KINDS[kind])
    rwalk.consolidate()
    assert rwalk.importances()["p"].item() == pytest.approx(2.0, abs=1e-6)
    assert ("penalty='proximal'" in caplog.text) == (share > 1.0)
    optimizer.state.clear()
    model["p"].data.fill_(1.0)
    away = []
    for _ in range(1500):
        model["p"].grad = torch.zeros(1).double()
        optimizer.step()
        away.append(abs(model["p"].item()))
    assert (away[-1] > 1e3) == (share > 1.0)
    assert (away[-1] < 1e-3) == (share < 1.0)


def test_it_is_told_again_when_strength_or_learning_rate_change(caplog):
    model, optimizer, rwalk = learned(0.1, RWalkConfig(ewc_lambda=1.0))

    def step():
        model["p"].grad = torch.zeros(1).double()
        optimizer.step()
        told = caplog.text.count("too strong")
        caplog.clear()
        return told

    rwalk.consolidate()
    assert step() == 0
    optimizer.param_groups[0]["lr"] = 0.6  # lr·2λΩ = 2.4
    assert [step(), step()] == [1, 0]
    optimizer.param_groups[0]["lr"] = 0.7
    assert step() == 0  # it is known
    optimizer.param_groups[0]["lr"] = 0.1
    assert step() == 0
    rwalk.config = rwalk.config.replace(ewc_lambda=10.0)
    assert caplog.text.count("too strong") == 1
    rwalk.config = rwalk.config.replace(penalty="proximal")
    caplog.clear()
    rwalk.consolidate()
    assert step() == 0


@pytest.mark.parametrize("fills", [True, False])
def test_a_learning_rate_in_a_tensor_is_read(fills, caplog):
    model, optimizer, rwalk = learned(torch.tensor(0.1), RWalkConfig(ewc_lambda=1.0))
    rwalk.consolidate()
    assert "too strong" not in caplog.text
    if fills:
        optimizer.param_groups[0]["lr"].fill_(0.6)
    else:
        model["p"].grad = torch.zeros(1).double()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = torch.tensor(0.6)
    model["p"].grad = torch.zeros(1).double()
    optimizer.step()
    assert "too strong" in caplog.text


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad])
def test_optimizers_of_bounded_steps_do_not_diverge_and_nothing_is_told(make, caplog):
    model = nn.ParameterDict({"p": nn.Parameter(torch.zeros(1).double())})
    optimizer = make(model.parameters(), lr=1e-2)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=1e6))
    model["p"].grad = torch.ones(1).double()
    optimizer.step()
    rwalk.settle()
    model["p"].data.zero_()
    rwalk.consolidate()
    away = []
    for step in range(3000):
        model["p"].grad = torch.full((1,), (-1.0) ** (step // 7)).double()
        optimizer.step()
        away.append(abs(model["p"].item()))
    assert max(away) < 0.1  # ten learning rates
    assert max(away[-100:]) < 0.02
    assert not caplog.text
