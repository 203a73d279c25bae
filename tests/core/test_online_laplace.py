"""Precisions of single samples that add up about the latest weights, against formulas written out in float64."""

import pytest
import torch
from torch import nn

from rwalk import RWalk, RWalkConfig, RWalkError
from rwalk.core.samples import fisher_of_samples

SETTINGS = RWalkConfig(fisher_source="samples", combine="sum", anchors="latest", scaling="none", terms="fisher")


def task(seed):
    torch.manual_seed(seed)
    x = torch.randn(30, 5, dtype=torch.float64)
    return [(x[i : i + 10], torch.randint(0, 3, (10,))) for i in range(0, 30, 10)]


def learn(model, optimizer, batches):
    for x, y in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def walked(config, model=None):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, optimizer, RWalk(model, optimizer, config)


def expected_fisher(model, batches, seed):
    """The mean over samples of ∇log p(y | x)², a backward pass for each; labels drawn as RWalk draws them."""
    rng, total = torch.Generator().manual_seed(seed), {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    rng_state, count = rng.get_state(), 0
    for index, (x, _) in enumerate(batches):
        if index == 0:
            rng.set_state(rng_state)
        chances = model(x).detach().float().softmax(-1)
        labels = torch.multinomial(chances, 1, generator=rng).flatten()
        for one, label in zip(x, labels, strict=True):
            log_prob = model(one[None]).log_softmax(-1)[0, label]
            for (name, _), g in zip(
                model.named_parameters(), torch.autograd.grad(log_prob, list(model.parameters())), strict=True
            ):
                total[name] += g.square()
            count += 1
    return {name: value / count for name, value in total.items()}


def test_precisions_of_single_samples_add_up_about_the_latest_weights():
    model, optimizer, rwalk = walked(SETTINGS)
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for seed in range(3):
        learn(model, optimizer, task(seed))
        for name, value in expected_fisher(model, task(seed), seed).items():
            total[name] += value
        rwalk.consolidate(task(seed))
        for name, value in rwalk.importances().items():
            torch.testing.assert_close(value, total[name], rtol=1e-9, atol=1e-15)
        assert rwalk.penalty().item() == 0.0  # anchors are where the weights are


def test_so_many_samples_are_looked_at():
    model, optimizer, rwalk = walked(SETTINGS.replace(fisher_samples=7))
    learn(model, optimizer, task(0))
    expected, done = fisher_of_samples(model, dict(model.named_parameters()), task(0), max_samples=7)
    rwalk.consolidate(task(0))
    assert done.samples == 7
    for name, value in rwalk.importances().items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("source", ["samples", "loader", "step"])
@pytest.mark.parametrize("score_average", ["latest", "mean"])
@pytest.mark.parametrize("leaves", [False, True])
def test_a_head_that_rested_adds_nothing_to_what_it_has(leaves, score_average, source):
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.heads = nn.Linear(5, 4), nn.ModuleList(nn.Linear(4, 3) for _ in range(2))
            self.now = 0

        def forward(self, x):
            return self.heads[self.now](self.trunk(x).relu())

    torch.manual_seed(2)
    settings = SETTINGS.replace(terms="both", score_average=score_average, scaling="sum", fisher_source=source)
    model, optimizer, rwalk = walked(settings, Heads().double())
    learn(model, optimizer, task(0))
    rwalk.consolidate(None if source == "step" else task(0))
    first = rwalk.importances()
    model.now = 1
    if leaves:
        optimizer = torch.optim.SGD([*model.trunk.parameters(), *model.heads[1].parameters()], lr=0.1)
        rwalk.detach()
        rwalk.attach(optimizer)
    learn(model, optimizer, task(1))
    rwalk.consolidate(None if source == "step" else task(1))
    second = rwalk.importances()
    assert torch.equal(first["heads.0.weight"], second["heads.0.weight"])
    assert "heads.1.weight" not in first
    assert float(second["heads.1.weight"].max()) > 0.0
    shares = sum(float(value.sum()) for value in second.values())
    assert shares == pytest.approx(4.0)  # Fisher and score of two tasks


def test_what_leaves_the_optimizer_before_its_task_ends_is_held_by_that_tasks_fisher():
    importances = []
    for leaves in (False, True):
        model, optimizer, rwalk = walked(SETTINGS)
        for seed in range(2):
            learn(model, optimizer, task(seed))
            if leaves and seed:
                optimizer.param_groups[0]["params"] = list(model[2].parameters())
            rwalk.consolidate(task(seed))
        importances.append(rwalk.importances())
    for name, value in importances[0].items():
        torch.testing.assert_close(importances[1][name], value)


def test_what_left_the_optimizer_in_a_task_that_protect_ends_joins_once():
    model, optimizer, rwalk = walked(RWalkConfig(combine="sum", scaling="none", terms="fisher"))
    learn(model, optimizer, task(0))
    rwalk.consolidate()
    held = [rwalk.importances()["0.weight"]]
    learn(model, optimizer, task(1))
    walk = rwalk.importances("fisher")["0.weight"]
    rwalk.detach()
    rwalk.attach(torch.optim.SGD(model[2].parameters(), lr=0.1))
    for _ in range(2):
        rwalk.protect([x for x, _ in task(1)])
        held.append(rwalk.importances()["0.weight"])
    torch.testing.assert_close(held[1], held[0] + walk)
    assert torch.equal(held[2], held[1])


@pytest.mark.parametrize(("combine", "expected"), [("sum", 3 * 2), ("mean", 2)])
def test_importances_are_shares_of_a_term_and_with_a_sum_of_a_task(combine, expected):
    settings = SETTINGS.replace(terms="both", score_average="latest", scaling="sum", combine=combine)
    model, optimizer, rwalk = walked(settings)
    for seed in range(3):
        learn(model, optimizer, task(seed))
        rwalk.consolidate(task(seed))
    everything = torch.cat([value.flatten() for value in rwalk.importances().values()])
    assert float(everything.sum()) == pytest.approx(expected, rel=1e-9)


def test_the_tasks_data_is_asked_for():
    model, optimizer, rwalk = walked(SETTINGS)
    learn(model, optimizer, task(0))
    with pytest.raises(RWalkError, match="fisher_source='samples' needs the task's data"):
        rwalk.consolidate()


@pytest.mark.parametrize(
    ("batches", "told"),
    [
        ([], r"consolidate\(\): there are no samples.*The task has not ended"),
        ([torch.randn(4, 5, dtype=torch.float64)], r"without labels could be anything.*Here forward does that"),
    ],
)
def test_data_without_a_fisher_is_refused_in_words_that_consolidate_understands(batches, told):
    torch.manual_seed(1)
    model, optimizer, rwalk = walked(SETTINGS, nn.Sequential(nn.Linear(5, 4), nn.Unflatten(1, (2, 2))).double())
    optimizer.zero_grad()
    model(torch.randn(4, 5).double()).sum().backward()
    optimizer.step()
    with pytest.raises(RWalkError, match=told):
        rwalk.consolidate(batches)
    assert rwalk.tasks == 0
    rwalk.consolidate([torch.randn(4, 5).double()], lambda x: model(x).flatten(1))
    assert rwalk.tasks == 1
