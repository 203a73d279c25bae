"""Each published variant follows a twin written for it alone; presets only choose settings."""

from itertools import combinations

import pytest
import torch
from torch import nn

from reference.published import agem, capymoa, facil
from rwalk import RWalk, RWalkConfig, RWalkError
from rwalk.core.presets import PRESETS

TASKS = (43, 20, 37)  # steps, not all of them whole windows


def build():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    return model, torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.8)


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).tolist()


def batch_of(generator, task):
    labels = torch.randint(0, 3, (8,), generator=generator)
    x = torch.randn(8, 3, generator=generator, dtype=torch.float64) + torch.eye(3, dtype=torch.float64)[labels] * (
        task + 1
    )
    return x, labels


def replay(config):
    """Train three tasks; what was recorded, the data of each task, and the penalty's weights after each."""
    model, optimizer = build()
    rwalk = RWalk(model, optimizer, config)
    generator = torch.Generator().manual_seed(11)
    recorded, passes, weights = [], [], []
    for task, steps in enumerate(TASKS):
        recorded.append([])
        for _ in range(steps):
            x, y = batch_of(generator, task)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            g, before = flat(p.grad for p in model.parameters()), flat(model.parameters())
            optimizer.step()
            recorded[-1].append((g, before, flat(model.parameters())))
        data = [batch_of(generator, task) for _ in range(3)]
        data[-1] = (data[-1][0][:5], data[-1][1][:5])
        passes.append([])
        for x, _ in data:
            outputs = model(x)
            loss = nn.functional.cross_entropy(outputs, outputs.argmax(1))
            passes[-1].append((flat(torch.autograd.grad(loss, list(model.parameters()))), len(x)))
        rwalk.consolidate(data if config.fisher_source == "loader" else None)
        weights.append(torch.tensor(flat(rwalk.importances().values())).double() * config.strength)
    return recorded, passes, weights


@pytest.mark.parametrize("ewc_lambda", [1.0, 0.3])
@pytest.mark.parametrize("name", ["facil", "capymoa"])
def test_a_preset_follows_the_code_it_is_named_after(name, ewc_lambda):
    recorded, passes, found = replay(RWalkConfig.preset(name, ewc_lambda=ewc_lambda))
    expected = {
        "facil": lambda: facil(recorded, passes, ewc_lambda),
        "capymoa": lambda: capymoa(recorded, ewc_lambda),
    }[name]()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, torch.tensor(theirs, dtype=torch.float64), rtol=1e-6, atol=1e-9)


def away_from_the_authors_code(config):
    """For each task, how far the penalty's weights are from those of the code, as a share of those."""
    recorded, _, found = replay(config)
    expected = [torch.tensor(weights, dtype=torch.float64) for weights in agem(recorded, damping=config.damping)]
    return [float((ours - theirs).norm() / theirs.norm()) for ours, theirs in zip(found, expected, strict=True)]


@pytest.mark.parametrize(
    ("damping", "share"),
    [
        (10.0, 0.05),  # the distance is next to nothing: windows that begin a step apart, and a sum that lags, are left
        (1e-3, 0.12),  # and a distance by the mean, where the code has the growing sum
    ],
)
def test_agem_follows_the_authors_code_but_for_the_scale_of_its_fisher(damping, share):
    assert max(away_from_the_authors_code(RWalkConfig.agem(damping=damping))) < share


@pytest.mark.parametrize(
    "change",
    [
        {"ewc_alpha": 0.9, "alpha_warmup": False},
        {"fisher_boundary": "keep"},
        {"score_average": "mean"},
        {"terms": "fisher"},
    ],
    ids=str,
)
def test_with_one_of_agems_settings_changed_it_is_another_code(change):
    assert away_from_the_authors_code(RWalkConfig.agem(damping=10.0, **change))[-1] > 0.15


def test_the_published_codes_disagree_with_one_another():
    final = {name: replay(RWalkConfig.preset(name, ewc_lambda=1.0))[2][-1] for name in ("agem", "capymoa", "avalanche")}
    for one, other in combinations(final.values(), 2):
        assert not torch.allclose(one, other, rtol=0.05)


def test_ewc_plus_plus_weighs_by_the_fisher_alone_and_path_integral_by_the_score_alone():
    recorded, _, weights = replay(RWalkConfig.ewc_plus_plus(ewc_lambda=1.0))
    fisher = [g**2 for g in recorded[0][0][0]]
    for g, _, _ in recorded[0][1:]:
        fisher = [0.9 * new**2 + 0.1 * old for new, old in zip(g, fisher, strict=True)]
    expected = torch.tensor(fisher, dtype=torch.float64) / max(fisher)
    torch.testing.assert_close(weights[0], expected, rtol=1e-6, atol=1e-9)

    recorded, _, weights = replay(RWalkConfig.path_integral(ewc_lambda=1.0))
    total = torch.zeros(len(fisher), dtype=torch.float64)
    for steps, found in zip(recorded, weights, strict=True):
        g, before, after = (torch.tensor(column, dtype=torch.float64) for column in zip(*steps, strict=True))
        change, moved = -(g * (after - before)).sum(0), after[-1] - before[0]
        total += (change / (moved**2 + 1e-3)).clamp(min=0.0)
        torch.testing.assert_close(found, total, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_also_a_method_that_takes_changes(name):
    assert getattr(RWalkConfig, name)() == RWalkConfig.preset(name)
    assert getattr(RWalkConfig, name)(ewc_lambda=7.0).ewc_lambda == 7.0


def test_paper_is_the_default():
    assert RWalkConfig.paper() == RWalkConfig()


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(
        ValueError,
        match=r"unknown preset 'facile' \(did you mean 'facil'\?\): choose one of paper, avalanche, facil, agem",
    ):
        RWalkConfig.preset("facile")


def test_the_data_for_the_fisher_is_asked_for_where_it_is_needed_and_refused_where_not():
    model, optimizer = build()
    rwalk = RWalk(model, optimizer, RWalkConfig.facil())
    model(torch.ones(2, 3).double()).sum().backward()
    optimizer.step()
    with pytest.raises(RWalkError, match=r"fisher_source='loader' needs the task's data: consolidate\(batches\)"):
        rwalk.consolidate()
    with pytest.raises(RWalkError, match="has no batches"):
        rwalk.consolidate([])
    rwalk.detach()
    with pytest.raises(RWalkError, match="fisher_source='step' takes no data"):
        RWalk(model, optimizer).consolidate([])


def test_the_fisher_pass_leaves_mode_gradients_and_running_statistics_alone():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig.facil())
    model(torch.randn(6, 3)).square().sum().backward()
    optimizer.step()
    gradients = [p.grad.clone() for p in model.parameters()]
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    rwalk.consolidate([(torch.randn(6, 3),), (torch.randn(6, 3),)])
    assert model.training
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in model.named_buffers())
    assert float(rwalk.importances("fisher")["0.weight"].max()) > 0
