"""The core against the naive twin, over whole trainings."""

import pytest
import torch
from torch import nn

from reference.naive import NaiveRWalk
from reference.optimizers import NaiveAdam, NaiveSGD
from reference.problems import assert_close, batches, gradient_at, gradients, lists, tanh_net, weights
from rwalk import RWalk, RWalkConfig

TASKS, STEPS = 3, 73  # 219 steps; 73 leaves an unfinished window for every delta_t below
LR = {"sgd": 0.05, "adam": 0.01, "adamw": 0.01}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=LR["sgd"], momentum=0.9, weight_decay=1e-3),
    "adam": lambda p: torch.optim.Adam(p, lr=LR["adam"], weight_decay=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=LR["adamw"], weight_decay=0.1),
}
TWINS = {
    "sgd": lambda: NaiveSGD(LR["sgd"], momentum=0.9, weight_decay=1e-3),
    "adam": lambda: NaiveAdam(LR["adam"], weight_decay=1e-3),
    "adamw": lambda: NaiveAdam(LR["adamw"], weight_decay=0.1, decoupled=True),
}
SETTINGS = {
    "published": RWalkConfig(ewc_lambda=0.5),
    "slow fisher": RWalkConfig(ewc_lambda=0.5, ewc_alpha=0.05, alpha_warmup=True, delta_t=7, rectify="window"),
    "relative": RWalkConfig(ewc_lambda=0.5, damping_scale="relative", unfinished="drop", scaling="minmax"),
    "relative tenth": RWalkConfig(ewc_lambda=0.5, damping_scale="relative", damping=0.1, delta_t=1),
    "absolute 1e-3": RWalkConfig(ewc_lambda=0.5, damping=1e-3, delta_t=30, rectify="window", unfinished="drop"),
    "proximal": RWalkConfig(ewc_lambda=5.0, penalty="proximal", damping_scale="relative"),
    "unscaled": RWalkConfig(ewc_lambda=0.01, scaling="none", damping=1.0, ewc_alpha=0.5),
    "agem": RWalkConfig.agem(ewc_lambda=0.5),
    "avalanche": RWalkConfig.avalanche(ewc_lambda=0.5),
    "capymoa": RWalkConfig.capymoa(ewc_lambda=0.5),
    "ewc++": RWalkConfig.ewc_plus_plus(ewc_lambda=0.5, ewc_alpha=0.1),
    "path integral": RWalkConfig.path_integral(ewc_lambda=1e-3),
    "facil, fisher of steps": RWalkConfig.facil(ewc_lambda=0.5, fisher_source="step"),
    "laplace, fisher of steps": RWalkConfig.laplace(fisher_source="step", proximal_rate="lr"),
    "measuring only": RWalkConfig(ewc_lambda=0.0),
}


def compare(rwalk: RWalk, twin: NaiveRWalk, relative: float) -> None:
    assert_close(rwalk.importances("fisher"), twin.fisher, relative, "Fisher")
    assert_close(rwalk.importances("score"), twin.score, relative, "score")
    if twin.tasks:
        assert_close(rwalk.importances("penalty"), twin.importance, relative, "importance")


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_whole_training_in_float64_equals_the_naive_twin(optimizer_name, setting):
    config, lr = SETTINGS[setting], LR[optimizer_name]
    model = tanh_net()
    template, theta = tanh_net(), lists(weights(model))
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    rwalk = RWalk(model, optimizer, config)
    twin, twin_optimizer = NaiveRWalk(config), TWINS[optimizer_name]()
    penalties = []
    for task in range(TASKS):
        for x, y in batches(task, STEPS):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()

            plain = gradient_at(template, theta, lambda out, y=y: nn.functional.mse_loss(out, y), x)
            moved = twin_optimizer.step(theta, twin.penalised(plain, theta))
            moved = twin.pulled(moved, plain, lr)
            twin.observe(plain, theta, moved)
            theta = moved
        assert_close(weights(model), theta, 1e-10, "parameter")
        compare(rwalk, twin, 1e-10)
        penalties.append(twin.penalty(theta))
        assert rwalk.penalty().item() == pytest.approx(penalties[-1], rel=1e-9)
        rwalk.consolidate()
        twin.end_task(theta)
        compare(rwalk, twin, 1e-10)
    assert rwalk.tasks == TASKS
    assert rwalk.steps == TASKS * STEPS
    assert (penalties[-1] > 0) == (config.ewc_lambda > 0)  # the comparison was of something


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_float32_accounting_equals_the_twin_on_the_recorded_steps(optimizer_name, setting):
    config = SETTINGS[setting]
    model = tanh_net(dtype=torch.float32)
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    rwalk, twin = RWalk(model, optimizer, config), NaiveRWalk(config, floor=2.0**-103)
    for task in range(TASKS):
        for x, y in batches(task, STEPS, torch.float32):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            plain, before = lists(gradients(model)), lists(weights(model))
            optimizer.step()
            twin.observe(plain, before, lists(weights(model)))
        rwalk.consolidate()
        twin.end_task(lists(weights(model)))
        compare(rwalk, twin, 1e-5)
    assert rwalk.importances("fisher")["0.weight"].dtype is torch.float32
