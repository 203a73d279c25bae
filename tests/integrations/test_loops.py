"""What loops do around a step: clip, clear gradients, change the learning rate."""

import pytest
import torch
from torch import nn

from integrations.recorded import CONFIG, Recorded
from reference.naive import NaiveRWalk
from reference.optimizers import NaiveSGD
from reference.problems import (
    assert_close,
    assert_same,
    assert_same_state,
    batches,
    gradient_at,
    gradients,
    lists,
    tanh_net,
    weights,
)
from rwalk import RWalk


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
@pytest.mark.parametrize("by_value", [False, True])
def test_clipping_before_the_step_is_seen_by_the_fisher_and_spares_the_penalty(by_value, penalty):
    model = tanh_net(dtype=torch.float32)
    optimizer = sgd(model)
    recorded = Recorded(model, optimizer, CONFIG.replace(penalty=penalty))
    for task in range(2):
        for x, y in batches(task, 10, torch.float32):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            if by_value:
                nn.utils.clip_grad_value_(model.parameters(), 0.01)
            else:
                nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            expected = nn.utils.parameters_to_vector(gradients(model).values())
            assert expected.abs().max() <= 0.01 * (1 + 1e-6)
            if task and penalty == "gradient":
                pull = torch.autograd.grad(recorded.rwalk.penalty(), list(model.parameters()))
                expected = expected + nn.utils.parameters_to_vector(pull)
            recorded.step(optimizer.step)
            torch.testing.assert_close(nn.utils.parameters_to_vector(gradients(model).values()), expected)
        recorded.end_task()
    assert all(value.max() <= 0.01**2 * (1 + 1e-5) for value in recorded.rwalk.importances("fisher").values())


def test_clipping_between_the_two_halves_clips_the_penalty_too_and_the_fisher_sees_the_whole_gradient():
    model = tanh_net(dtype=torch.float32)
    optimizer = sgd(model)
    rwalk, twin = RWalk(model, optimizer, CONFIG, attach=False), NaiveRWalk(CONFIG)
    for task in range(2):
        for x, y in batches(task, 10, torch.float32):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            plain, before = lists(gradients(model)), lists(weights(model))
            rwalk.before_step()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.01)
            optimizer.step()
            rwalk.after_step()
            twin.observe(plain, before, lists(weights(model)))
            moved = sum(
                ((b - a) ** 2) for n in before for a, b in zip(before[n], lists(weights(model))[n], strict=True)
            )
            assert norm > 0.01
            assert moved**0.5 == pytest.approx(0.1 * 0.01, rel=1e-3)  # learning rate times the clipped norm
        rwalk.consolidate()
        twin.end_task(lists(weights(model)))
        assert_close(rwalk.importances("fisher"), twin.fisher, 1e-5, "Fisher")
        assert_close(rwalk.importances("score"), twin.score, 1e-5, "score")


def clearing(when):
    model = tanh_net()
    optimizer = sgd(model)
    rwalk = RWalk(model, optimizer, CONFIG)
    for task in range(2):
        for x, y in batches(task, 10):
            if when == "before forward":
                optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            if when == "before backward, kept":
                optimizer.zero_grad(set_to_none=False)
            loss.backward()
            optimizer.step()
            if when == "after the step":
                optimizer.zero_grad()
            elif when == "after the step, by the model":
                model.zero_grad()
        rwalk.consolidate()
        optimizer.zero_grad()
    return weights(model), rwalk.state_dict()


@pytest.mark.parametrize("when", ["before backward, kept", "after the step", "after the step, by the model"])
def test_gradients_can_be_cleared_anywhere(when):
    expected, state = clearing("before forward")
    found, its_state = clearing(when)
    assert_same(found, expected)
    assert_same_state(its_state, state)


@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
def test_a_learning_rate_schedule_is_followed_step_by_step(penalty):
    config = CONFIG.replace(penalty=penalty, ewc_lambda=5.0)
    model, template = tanh_net(), tanh_net()
    theta, twin, plain_optimizer = lists(weights(model)), NaiveRWalk(config), NaiveSGD(0.1)
    optimizer = sgd(model)
    schedule = torch.optim.lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, step_size_up=4, cycle_momentum=False)
    rwalk, rates = RWalk(model, optimizer, config), set()
    for task in range(2):
        for x, y in batches(task, 10):
            plain_optimizer.lr = optimizer.param_groups[0]["lr"]
            rates.add(plain_optimizer.lr)
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
            schedule.step()
            plain = gradient_at(template, theta, lambda out, y=y: nn.functional.mse_loss(out, y), x)
            moved = twin.pulled(plain_optimizer.step(theta, twin.penalised(plain, theta)), plain, plain_optimizer.lr)
            twin.observe(plain, theta, moved)
            theta = moved
        rwalk.consolidate()
        twin.end_task(theta)
    assert len(rates) > 4
    assert_close(weights(model), theta, 1e-10, "parameter")
    assert_close(rwalk.importances("penalty"), twin.importance, 1e-9, "importance")
