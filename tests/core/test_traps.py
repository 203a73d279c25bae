"""One test for each trap that published code has fallen into; the numbers are those of the method's notes."""

import pytest
import torch
from torch import nn

from reference.problems import assert_same, batches, gradients, tanh_net, train, weights
from rwalk import RWalk, RWalkConfig


def test_trap_1_dropout_and_batchnorm_keep_training():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    modes = []
    model.register_forward_hook(lambda module, *_: modes.append(module.training and module[2].training))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    for task in range(2):
        train(model, optimizer, task, 40, torch.float32)
        rwalk.consolidate()
    assert modes == [True] * 80
    assert model[1].num_batches_tracked.item() == 80


@pytest.mark.parametrize("config", [RWalkConfig(), RWalkConfig(unfinished="drop"), RWalkConfig(scaling="minmax")])
def test_trap_2_a_task_shorter_than_a_window_never_gives_nan(config):
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, config.replace(delta_t=1000, ewc_lambda=1.0))
    for task in range(3):
        train(model, optimizer, task, steps=5)
        rwalk.consolidate()
        assert all(bool(torch.isfinite(value).all()) for value in rwalk.importances().values())
    assert all(bool(torch.isfinite(value).all()) for value in weights(model).values())
    if config.unfinished == "flush":
        assert rwalk.importances("score")["0.weight"].abs().sum() > 0


def test_trap_3_a_head_made_after_the_task_began_is_tracked_and_protected():
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=1.0))
    train(model, optimizer, task=0, steps=15)
    rwalk.consolidate()
    model.append(nn.Linear(2, 2).double())
    optimizer.add_param_group({"params": model[3].parameters()})
    train(model, optimizer, task=1, steps=15)
    rwalk.consolidate()
    assert rwalk.importances()["3.weight"].max() > 0


def test_trap_3_accumulated_gradients_are_not_wiped():
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    optimizer.zero_grad()
    for x, y in batches(0, 4):
        (nn.functional.mse_loss(model(x), y) / 4).backward()
    accumulated = gradients(model)
    optimizer.step()
    assert_same(rwalk.importances("fisher"), {name: value**2 for name, value in accumulated.items()})
    assert_same(gradients(model), accumulated)


@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
def test_trap_3_at_most_eight_parameter_sized_buffers(penalty):
    model = tanh_net(dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(penalty=penalty))
    for task in range(2):
        train(model, optimizer, task, 15, torch.float32)
        rwalk.consolidate()
    held = sum(flat.numel() for bucket in rwalk._tracker.buckets for flat in bucket.flat.values())
    assert held <= 8 * sum(parameter.numel() for parameter in model.parameters())


def run_of_constant_gradients(config, slopes):
    model = nn.ParameterDict({"p": nn.Parameter(torch.zeros(1).double())})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, config)
    for slope in slopes:
        model["p"].grad = torch.tensor([slope], dtype=torch.float64)
        optimizer.step()
    return rwalk.importances("fisher")["p"].item()


def test_trap_4_alpha_warmup_makes_the_fisher_a_mean_instead_of_one_batch():
    slopes = [10.0, *(1.0 + index / 50 for index in range(49))]
    mean = sum(slope**2 for slope in slopes) / len(slopes)
    warm = run_of_constant_gradients(RWalkConfig(ewc_alpha=1e-3, alpha_warmup=True), slopes)
    assert warm == pytest.approx(mean, rel=1e-12)
    cold = run_of_constant_gradients(RWalkConfig(ewc_alpha=1e-3), slopes)
    assert cold == pytest.approx(100.0, rel=0.06)  # still the first batch
    last = run_of_constant_gradients(RWalkConfig(ewc_alpha=0.9), slopes)
    assert last == pytest.approx(slopes[-1] ** 2, rel=0.01)  # nothing but the last


def test_trap_4_warmup_ends_at_alpha():
    slopes = [2.0, 0.0, 1.0, 3.0]  # weights of the new term: 1, 1/2, 0.4, 0.4
    fisher = ((4.0 * 0.5 + 0.0 * 0.5) * 0.6 + 0.4 * 1.0) * 0.6 + 0.4 * 9.0
    assert run_of_constant_gradients(RWalkConfig(ewc_alpha=0.4, alpha_warmup=True), slopes) == pytest.approx(fisher)


def scores_and_loss_change(config):
    """One window of an ordinary float32 training: flat scores, and the loss change they are made of."""
    model = tanh_net(dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    rwalk = RWalk(model, optimizer, config)
    change = torch.zeros(26)
    for x, y in batches(0, config.delta_t, torch.float32):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        before, slope = torch.nn.utils.parameters_to_vector(model.parameters()).detach(), gradients(model)
        optimizer.step()
        moved = torch.nn.utils.parameters_to_vector(model.parameters()).detach() - before
        change -= torch.cat([value.flatten() for value in slope.values()]) * moved
    return torch.cat([score.flatten() for score in rwalk.importances("score").values()]), change


def test_trap_5_relative_damping_lets_the_riemannian_distance_act():
    swamped, change = scores_and_loss_change(RWalkConfig(delta_t=3, damping=0.1))
    torch.testing.assert_close(swamped, change / 0.1, rtol=1e-3, atol=0.0)  # s = ΔL/ε: no Fisher in it

    relative, change = scores_and_loss_change(RWalkConfig(delta_t=3, damping_scale="relative"))
    share = relative / change
    share = share / share.max()  # ε̄ / (½FΔθ² + ε̄), where ε̄ is the mean of ½FΔθ²
    assert share.min() < 0.3
    assert share.max() / share.median() < 1.5


def test_trap_5_relative_damping_does_not_see_the_scale_of_the_loss():
    scaled = []
    for scale in (1.0, 1e-3):
        model = tanh_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05 / scale)
        rwalk = RWalk(model, optimizer, RWalkConfig(damping_scale="relative"))
        for x, y in batches(0, 20):
            optimizer.zero_grad()
            (scale * nn.functional.mse_loss(model(x), y)).backward()
            optimizer.step()
        rwalk.consolidate()
        scaled.append(rwalk.importances())
    for name, importance in scaled[0].items():
        torch.testing.assert_close(scaled[1][name], importance, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("penalty", "diverges"), [("gradient", True), ("proximal", False)])
def test_trap_6_the_proximal_step_is_stable_where_the_gradient_step_diverges(penalty, diverges):
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=100.0, penalty=penalty))  # lr·2λ·max(F + s) up to 20
    train(model, optimizer, task=0, steps=20)
    rwalk.consolidate()
    anchor = weights(model)
    train(model, optimizer, task=1, steps=60)
    away = max((value - anchor[name]).abs().max().item() for name, value in weights(model).items())
    assert away > 1e6 if diverges else away < 1.0


def test_trap_7_gradients_made_inside_a_closure_are_this_steps_and_not_the_last():
    model = nn.ParameterDict({"p": nn.Parameter(torch.zeros(1).double())})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    rwalk = RWalk(model, optimizer, RWalkConfig(delta_t=1, damping=1.0))
    for slope in (3.0, -2.0):

        def closure(slope=slope):
            optimizer.zero_grad()
            loss = slope * model["p"].sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    fisher = 0.9 * 4.0 + 0.1 * 9.0
    score = 3.0 * 1.5 / (0.5 * 9.0 * 1.5**2 + 1.0) + 2.0 * 1.0 / (0.5 * fisher * 1.0 + 1.0)
    assert rwalk.importances("fisher")["p"].item() == pytest.approx(fisher)
    assert rwalk.importances("score")["p"].item() == pytest.approx(score)
