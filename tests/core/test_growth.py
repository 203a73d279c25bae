"""A head that gains rows: what it knew stays protected, the new rows start afresh."""

import pytest
import torch
from torch import nn

from reference.problems import gradients, tanh_net, train, weights
from rwalk import RWalk, RWalkConfig

NEW = 7.0  # what the new rows hold
CONFIG = RWalkConfig(ewc_lambda=0.1, ewc_alpha=0.5, delta_t=4)


def grow_in_place(model, optimizer):
    for name in ("weight", "bias"):
        parameter = getattr(model[2], name)
        parameter.data = torch.cat([parameter.data, torch.full_like(parameter.data[:1], NEW)])
        parameter.grad = None


def grow_by_replacement(model, optimizer):
    old = model[2]
    model[2] = nn.Linear(4, 3).double()
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(model[2], name)[:2] = getattr(old, name)
            getattr(model[2], name)[2:] = NEW
    replaced = {id(old.weight): model[2].weight, id(old.bias): model[2].bias}
    group = optimizer.param_groups[0]
    group["params"] = [replaced.get(id(parameter), parameter) for parameter in group["params"]]


def loss(model, seed):
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed)).double()
    return (model(x) - 1.0).square().mean()


def steps(model, optimizer, count):
    for seed in range(count):
        optimizer.zero_grad()
        loss(model, seed).backward()
        optimizer.step()


@pytest.fixture(params=[grow_in_place, grow_by_replacement])
def grow(request):
    return request.param


@pytest.fixture
def learned():
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    rwalk = RWalk(model, optimizer, CONFIG)
    train(model, optimizer, task=0, steps=18)
    return model, optimizer, rwalk


def test_old_rows_keep_their_history_and_new_rows_start_with_their_first_gradient(grow, learned):
    model, optimizer, rwalk = learned
    rwalk.consolidate()
    past, fisher, score = rwalk.importances(), rwalk.importances("fisher"), rwalk.importances("score")
    old = weights(model)
    grow(model, optimizer)
    loss(model, 0).backward()
    plain = gradients(model)
    optimizer.step()
    for name in ("2.weight", "2.bias"):
        entry, g = rwalk.state_dict()["parameters"][name], plain[name]
        assert torch.equal(entry["importance"][:2], past[name])
        assert torch.equal(entry["score"][:2], score[name])
        assert not bool(entry["importance"][2:].any() or entry["score"][2:].any())
        torch.testing.assert_close(entry["fisher"][:2], 0.5 * g[:2] ** 2 + 0.5 * fisher[name])
        torch.testing.assert_close(entry["fisher"][2:], g[2:] ** 2)
        assert torch.equal(entry["anchor"][:2], old[name])
        assert bool((entry["anchor"][2:] == NEW).all())
        assert bool((entry["window_start"][2:] == NEW).all())


def test_the_second_update_of_new_rows_is_an_ordinary_one(grow, learned):
    model, optimizer, rwalk = learned
    rwalk.consolidate()
    grow(model, optimizer)
    seen = []
    for seed in range(2):
        optimizer.zero_grad()
        loss(model, seed).backward()
        seen.append(model[2].bias.grad[2].item())
        optimizer.step()
    expected = 0.5 * seen[1] ** 2 + 0.5 * seen[0] ** 2
    assert rwalk.importances("fisher")["2.bias"][2].item() == pytest.approx(expected, rel=1e-12)


def test_growth_inside_a_window_scores_new_rows_from_where_they_joined(grow, learned):
    model, optimizer, rwalk = learned  # 18 steps: two into a window of four
    grow(model, optimizer)
    values, slopes = [NEW], []
    for seed in range(2):
        optimizer.zero_grad()
        loss(model, seed).backward()
        slopes.append(model[2].bias.grad[2].item())
        optimizer.step()
        values.append(model[2].bias[2].item())
    assert rwalk.window_steps == 0
    change = slopes[0] * (values[0] - values[1]) + slopes[1] * (values[1] - values[2])
    fisher = 0.5 * slopes[1] ** 2 + 0.5 * slopes[0] ** 2
    expected = change / (0.5 * fisher * (values[2] - values[0]) ** 2 + 2.0**-23)
    assert rwalk.importances("score")["2.bias"][2].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("moment", ["penalty", "consolidate", "a step without it"])
def test_growth_is_noticed_before_the_next_gradient(grow, learned, moment):
    model, optimizer, rwalk = learned
    if moment != "consolidate":
        rwalk.consolidate()
    grow(model, optimizer)
    if moment == "consolidate":
        rwalk.consolidate()
        assert rwalk.importances()["2.bias"].shape == (3,)
        assert rwalk.importances()["2.bias"][2].item() == 0.0
    if moment == "a step without it":
        optimizer.zero_grad()
        model[0](torch.ones(1, 3).double()).sum().backward()
        optimizer.step()
        with torch.no_grad():
            model[0].load_state_dict({n: v["anchor"] for n, v in _first_layer(rwalk).items()})
    assert rwalk.penalty().item() == 0.0
    steps(model, optimizer, 9)
    rwalk.consolidate()
    assert rwalk.importances()["2.bias"][2].item() > 0.0


def _first_layer(rwalk):
    entries = rwalk.state_dict()["parameters"]
    return {name: entries[f"0.{name}"] for name in ("weight", "bias")}


def test_a_grown_walk_goes_on_from_its_state(grow, learned):
    model, optimizer, rwalk = learned
    rwalk.consolidate()
    grow(model, optimizer)
    assert rwalk.penalty().item() == 0.0  # lays the state out anew; no gradient has been seen yet
    saved = rwalk.state_dict()
    other = tanh_net()
    other[2] = nn.Linear(4, 3).double()
    other.load_state_dict(model.state_dict())
    its_optimizer = torch.optim.SGD(other.parameters(), lr=0.05)
    resumed = RWalk(other, its_optimizer, CONFIG)
    resumed.load_state_dict(saved)
    for each in ((model, optimizer), (other, its_optimizer)):
        steps(*each, 5)
    assert torch.equal(other[2].weight, model[2].weight)
    assert torch.equal(resumed.importances("fisher")["2.weight"], rwalk.importances("fisher")["2.weight"])
    assert torch.equal(resumed.importances("score")["2.bias"], rwalk.importances("score")["2.bias"])


def test_a_parameter_of_another_rank_starts_over():
    model = nn.ParameterDict({"p": nn.Parameter(torch.ones(3).double())})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, CONFIG.replace(ewc_alpha=0.1, alpha_warmup=True))
    for _ in range(4):
        model["p"].grad = torch.full((3,), 2.0).double()
        optimizer.step()
    rwalk.consolidate()
    model["p"].data = torch.ones(2, 3).double()
    for slope, fisher in ((3.0, 9.0), (1.0, 5.0)):  # a plain mean from its own first update on
        model["p"].grad = torch.full((2, 3), slope).double()
        optimizer.step()
        assert torch.equal(rwalk.importances("fisher")["p"], torch.full((2, 3), fisher).double())
    assert not bool(rwalk.importances()["p"].any())


def test_growing_twice_before_a_gradient_starts_all_new_rows_afresh(learned):
    model, optimizer, rwalk = learned
    rwalk.consolidate()
    grow_in_place(model, optimizer)
    assert rwalk.penalty().item() == 0.0  # notices the first growth
    grow_in_place(model, optimizer)
    model(torch.ones(1, 3).double()).sum().backward()
    slope = gradients(model)["2.bias"]
    optimizer.step()
    assert torch.equal(rwalk.importances("fisher")["2.bias"][2:], slope[2:] ** 2)
    assert bool((rwalk.state_dict()["parameters"]["2.bias"]["anchor"][2:] == NEW).all())


@pytest.mark.parametrize("source", ["step", "loader", "samples"])
def test_rows_that_joined_and_moved_keep_their_window_when_others_join(grow, source):
    starts = []
    for again in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rwalk = RWalk(model, optimizer, RWalkConfig(delta_t=None, fisher_source=source))
        steps(model, optimizer, 3)
        grow(model, optimizer)
        steps(model, optimizer, 3)
        if again:
            grow_in_place(model, optimizer)
        starts.append(rwalk.state_dict()["parameters"]["2.bias"]["window_start"][2].item())
    assert starts == [NEW, NEW]
