"""A report every so many steps, and the strength that one suggests."""

import pytest
import torch
from torch import nn

from core.reported import Times, network, train, walked
from rwalk import RWalk, RWalkConfig, RWalkError


class Child(torch.optim.Adam):
    def step(self, closure=None):
        return super().step(closure)


@pytest.mark.parametrize("kind", [torch.optim.Adam, Child])
def test_report_every_so_many_steps(kind):
    torch.optim.Adam([nn.Parameter(torch.ones(1))])  # torch hooks a class when it is first used
    model, optimizer, rwalk, _ = walked(steps=0, optimizer=kind)
    seen = []
    handle = rwalk.report_every(3, lambda report: seen.append((report.task_steps, report.total.ratio)))
    train(model, optimizer, 10)
    assert [steps for steps, _ in seen] == [3, 6, 9]
    assert seen[0][1] != seen[1][1]
    handle.remove()
    train(model, optimizer, 3)
    assert len(seen) == 3
    with pytest.raises(ValueError, match="steps=0"):
        rwalk.report_every(0, print)


@pytest.mark.parametrize("lam", [0.0, 0.01, 3.0])
@pytest.mark.parametrize("preset", [{}, {"penalty_factor": 0.5}])
def test_the_strength_suggested_gives_that_ratio(lam, preset):
    _, _, rwalk, _ = walked(ewc_lambda=lam, **preset)
    suggested = rwalk.suggest_lambda(target=2.0)
    rwalk.config = rwalk.config.replace(ewc_lambda=suggested)  # settles: weights are the present ones
    here = rwalk.report().total
    rwalk.config = rwalk.config.replace(ewc_lambda=rwalk.suggest_lambda(target=2.0))
    assert rwalk.report().total.ratio == pytest.approx(2.0, rel=1e-9)
    assert here.ratio == pytest.approx(2.0, rel=0.5)


@pytest.mark.parametrize("look", ["importances", "state_dict", "settle"])
def test_a_layer_that_took_no_part_in_the_last_step_counts_no_more_once_the_state_was_asked_for(look):
    torch.manual_seed(0)
    body, heads = nn.Linear(5, 8).double(), [nn.Linear(8, 3).double() for _ in range(2)]
    model = nn.ModuleList([body, *heads])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=0.0))
    for head, steps, size in ((heads[0], 20, 100.0), (heads[1], 12, 1.0)):  # the first one's gradient is kept
        train(nn.Sequential(body, nn.Tanh(), head, Times(size)), optimizer, steps)
        if head is heads[0]:
            rwalk.consolidate()
    before = rwalk.report().total.unit_ratio, rwalk.suggest_lambda()
    getattr(rwalk, look)()
    assert rwalk.report().total.unit_ratio == pytest.approx(before[0], rel=0.2)
    assert rwalk.suggest_lambda() == pytest.approx(before[1], rel=0.2)


def test_the_strength_suggested_is_one_at_which_sgd_converges():
    _, _, rwalk, _ = walked(optimizer=torch.optim.SGD, lr=0.5, ewc_lambda=1e-3)
    peak = max(float(value.max()) for value in rwalk.importances().values())
    diverges_at = 2.0 / 0.5 / (2.0 * peak)  # lr·2λ·Ω > 2
    assert rwalk.suggest_lambda(target=1e9) == pytest.approx(diverges_at / 2.0)
    rwalk.config = rwalk.config.replace(ewc_lambda=rwalk.suggest_lambda(target=1e9))
    assert not any("diverge" in warning for warning in rwalk.report().warnings)


def test_no_strength_is_suggested_out_of_nothing():
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    rwalk = RWalk(model, optimizer)
    with pytest.raises(RWalkError, match="before anything is protected"):
        rwalk.suggest_lambda()
    train(model, optimizer, 3)
    rwalk.consolidate()
    with pytest.raises(RWalkError, match="no step of the new task"):
        rwalk.suggest_lambda()
    for target in (0.0, -1.0, float("nan"), float("inf"), "5"):
        with pytest.raises(ValueError, match="target="):
            rwalk.suggest_lambda(target)


@pytest.mark.parametrize("look", [lambda rwalk: None, RWalk.settle, RWalk.state_dict])
def test_no_strength_is_suggested_by_a_step_that_does_not_count(look):
    model, optimizer, rwalk, _ = walked()
    before = rwalk.suggest_lambda()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    kept = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.step()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), kept, strict=True):
            parameter.copy_(value)
    look(rwalk)
    with pytest.raises(RWalkError, match=r"that step did not count: its gradient was not finite \(skipped: 1\)"):
        rwalk.suggest_lambda()
    optimizer.state.clear()
    train(model, optimizer, 1)
    assert 0.0 < rwalk.suggest_lambda() < 1e3 * before


@pytest.mark.parametrize("ratio", [0.0, -1.0, float("nan"), float("inf"), "5", True])
def test_no_strength_is_named_for_a_ratio_that_cannot_be(ratio):
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    rwalk = RWalk(model, optimizer)
    train(model, optimizer, 3)
    rwalk.consolidate()
    train(model, optimizer, 3)
    with pytest.raises(ValueError, match=f"ratio={ratio!r}: expected a finite number > 0"):
        rwalk.report().lambda_at(ratio)
