"""Optimizers beyond SGD and Adam: torch's Muon and its kin, schedulefree (other weights for evaluation), 8 bits."""

from importlib.util import find_spec

import pytest
import schedulefree
import torch
from torch import nn

from integrations.recorded import CONFIG, Recorded
from reference.problems import assert_same, batches, tanh_net, weights
from rwalk import RWalk, RWalkConfig
from rwalk.integrations.several import RWalkGroup

WHOLE = {
    "schedulefree adamw": lambda p: schedulefree.AdamWScheduleFree(p, lr=0.01, warmup_steps=3),
    "schedulefree adamw, one by one": lambda p: schedulefree.AdamWScheduleFree(p, lr=0.01, foreach=False),
    "schedulefree sgd": lambda p: schedulefree.SGDScheduleFree(p, lr=0.1),
    "schedulefree radam": lambda p: schedulefree.RAdamScheduleFree(p, lr=0.1),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.05),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
}
if hasattr(torch.optim, "Muon"):
    WHOLE["muon"] = lambda p: torch.optim.Muon([each for each in p if each.ndim == 2], lr=0.02)


def eight_bits(parameters):
    import bitsandbytes

    return bitsandbytes.optim.AdamW8bit(parameters, lr=0.01, min_8bit_size=1)


ABSENT = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
EVERY = [
    *(pytest.param(make, id=name) for name, make in WHOLE.items()),
    pytest.param(eight_bits, id="bitsandbytes adamw, 8 bits", marks=ABSENT),
]


def model_and(make_optimizer):
    model = tanh_net(dtype=torch.float32)
    optimizer = make_optimizer(list(model.parameters()))
    if hasattr(optimizer, "train"):
        optimizer.train()
    return model, optimizer


def losses(model, optimizer, task, steps=10):
    for x, y in batches(task, steps, torch.float32):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        yield loss


@pytest.mark.parametrize("make_optimizer", EVERY)
def test_the_accounting_is_that_of_the_steps_taken(make_optimizer):
    model, optimizer = model_and(make_optimizer)
    moved = {name for name, p in model.named_parameters() if any(p is q for q in optimizer.param_groups[0]["params"])}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in moved)
    recorded = Recorded(model, optimizer)
    for task in range(2):
        for _ in losses(model, optimizer, task):
            recorded.step(optimizer.step)
        assert (recorded.rwalk.penalty() > 0) == bool(task)
        recorded.end_task()
    assert set(recorded.rwalk.importances()) == moved


@pytest.mark.parametrize("make_optimizer", EVERY)
def test_measuring_alone_changes_nothing(make_optimizer):
    (plain, its_optimizer), (model, optimizer) = model_and(make_optimizer), model_and(make_optimizer)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=0.0, delta_t=3))
    for task in range(2):
        for _, _ in zip(losses(plain, its_optimizer, task), losses(model, optimizer, task), strict=True):
            its_optimizer.step()
            optimizer.step()
        rwalk.consolidate()
    assert_same(weights(model), weights(plain))


@pytest.mark.parametrize("make_optimizer", EVERY)
def test_the_penalty_holds_important_weights_back(make_optimizer):
    def drift(ewc_lambda):
        model, optimizer = model_and(make_optimizer)
        rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=ewc_lambda, delta_t=3))
        for _ in losses(model, optimizer, 0, 30):
            optimizer.step()
        rwalk.consolidate()
        anchors = weights(model)
        for _ in losses(model, optimizer, 1, 30):
            optimizer.step()
        importances = rwalk.importances()
        return sum((v * (weights(model)[n] - anchors[n]).square()).sum() for n, v in importances.items())

    assert drift(5.0) < 0.5 * drift(0.0)


def test_evaluating_with_schedulefree_in_mid_task_leaves_windows_and_anchors_alone():
    def trained(evaluates):
        model, optimizer = model_and(WHOLE["schedulefree adamw"])
        rwalk = RWalk(model.double(), optimizer, CONFIG)
        for task in range(2):
            for index, (x, y) in enumerate(batches(task, 10)):
                optimizer.zero_grad()
                nn.functional.mse_loss(model(x), y).backward()
                optimizer.step()
                if evaluates and index % 2:
                    optimizer.eval()
                    optimizer.train()
            rwalk.consolidate()
        return rwalk.importances()

    expected, found = trained(evaluates=False), trained(evaluates=True)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-9)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_beside_adamw_has_a_core_each():
    model = tanh_net(dtype=torch.float32)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    optimizers = [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=0.01)]
    group = RWalkGroup(CONFIG)
    group.attach(model, optimizers)
    for task in range(2):
        for x, y in batches(task, 10, torch.float32):
            for optimizer in optimizers:
                optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            for optimizer in optimizers:
                optimizer.step()
        group.consolidate()
    assert set(group.rwalks[0].importances()) == {"0.weight", "2.weight"}
    assert set(group.rwalks[1].importances()) == {"0.bias", "2.bias"}
    assert all(max(value.max() for value in rwalk.importances().values()) >= 1 for rwalk in group.rwalks.values())
