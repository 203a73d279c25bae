"""What RWalk does not do: add passes, touch the model's mode, change training that it only measures."""

import pytest
import torch
from torch import nn

from reference.problems import assert_same, batches
from rwalk import RWalk, RWalkConfig


class Counting(torch.autograd.Function):
    """Identity that counts how often a gradient flows through it."""

    backwards = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Counting.backwards += 1
        return gradient


class Noisy(nn.Module):
    """Dropout and batch statistics: a hidden pass or another mode would show."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        return self.body(Counting.apply(x.requires_grad_()))


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
}


def run(optimizer_name, config, tasks, steps=25):
    model = Noisy()
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    rwalk = RWalk(model, optimizer, config) if config else None
    torch.manual_seed(1)
    Counting.backwards = 0
    for task in range(tasks):
        for x, y in batches(task, steps, torch.float32):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
        if rwalk:
            rwalk.consolidate()
    return model, optimizer, Counting.backwards


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_the_first_task_is_bit_for_bit_plain_training(optimizer_name):
    plain, plain_optimizer, _ = run(optimizer_name, None, tasks=1)
    walked, walked_optimizer, _ = run(optimizer_name, RWalkConfig(ewc_lambda=100.0), tasks=1)
    assert_same(walked.state_dict(), plain.state_dict())  # weights and BatchNorm's running statistics
    for p, q in zip(plain.parameters(), walked.parameters(), strict=True):
        assert_same(
            {k: torch.as_tensor(v) for k, v in walked_optimizer.state[q].items()},
            {k: torch.as_tensor(v) for k, v in plain_optimizer.state[p].items()},
        )


@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_lambda_0_is_bit_for_bit_plain_training_over_tasks(optimizer_name, penalty):
    plain, *_ = run(optimizer_name, None, tasks=3)
    walked, *_ = run(optimizer_name, RWalkConfig(ewc_lambda=0.0, penalty=penalty), tasks=3)
    assert_same(walked.state_dict(), plain.state_dict())


@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
def test_a_penalty_changes_the_second_task(penalty):
    plain, *_ = run("sgd", None, tasks=2)
    walked, *_ = run("sgd", RWalkConfig(ewc_lambda=1.0, penalty=penalty), tasks=2)
    assert not torch.equal(walked.body[0].weight, plain.body[0].weight)


@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
def test_no_forward_or_backward_pass_is_added(penalty):
    model, _, backwards = run("sgd", RWalkConfig(penalty=penalty, delta_t=4), tasks=2)
    assert model.modes == [True] * 50
    assert backwards == 50


def test_modes_that_the_user_chose_stay():
    model = Noisy()
    model.body[1].eval()  # a frozen BatchNorm in a model that trains
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    rwalk = RWalk(model, optimizer, RWalkConfig(delta_t=2))
    for _ in range(2):
        for x, y in batches(0, 5, torch.float32):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
        rwalk.consolidate()
        rwalk.penalty()
    assert [module.training for module in model.body] == [True, False, True, True, True]


def test_parameters_keep_identity_and_grad_setting():
    model = Noisy()
    model.body[0].bias.requires_grad_(False)
    before = [(id(p), p.requires_grad) for p in model.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    rwalk = RWalk(model, optimizer, RWalkConfig(penalty="proximal", delta_t=2))
    for task in range(2):
        for x, y in batches(task, 5, torch.float32):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
        rwalk.consolidate()
    assert [(id(p), p.requires_grad) for p in model.parameters()] == before
    assert all(not value.requires_grad for value in rwalk.importances().values())
