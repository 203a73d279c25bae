"""The implicit step by the optimizer's own step lengths: written out, and stable at any strength."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rwalk import RWalk, RWalkConfig, RWalkError

SETTINGS = RWalkConfig(penalty="proximal", proximal_rate="optimizer", scaling="sum", combine="sum", anchors="latest")
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
}


def data(task):
    torch.manual_seed(task)
    x = torch.randn(40, 4, dtype=torch.float64)
    return x, (x @ torch.randn(4, 3, dtype=torch.float64)).argmax(1)


def network(seed=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def learn(model, optimizer, task, steps, after=lambda: None):
    x, y = data(task)
    for step in range(steps):
        chosen = slice(8 * (step % 5), 8 * (step % 5) + 8)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
        after()


def adafactor(parameters):
    return torch.optim.Adafactor(parameters, lr=0.01)


def uncounted(parameters):
    class Uncounted(torch.optim.AdamW):
        """Keeps second moments and no count of its steps, as schedule-free optimizers do."""

        def step(self, closure=None):
            for state in self.state.values():
                state["step"] = torch.tensor(float(state.pop("known")))
            super().step(closure)
            for state in self.state.values():
                state["known"] = float(state.pop("step"))

    return Uncounted(parameters, lr=0.01)


@pytest.mark.parametrize("make", [adafactor, uncounted])
def test_optimizers_of_another_make_are_followed(make):
    model = network()
    rwalk = RWalk(model, optimizer := make(model.parameters()), SETTINGS.replace(ewc_lambda=100.0))
    learn(model, optimizer, 0, 10)
    rwalk.consolidate()
    learn(model, optimizer, 1, 10)
    assert (rwalk.task_steps, rwalk.penalty().item() > 0.0) == (10, True)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adagrad(p, lr=0.3, lr_decay=0.01),
        lambda p: torch.optim.RMSprop(p, lr=0.001, centered=True, alpha=0.9),
        lambda p: torch.optim.RMSprop(p, lr=0.001),
        lambda p: torch.optim.RMSprop(p, lr=0.0001, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.01),
        lambda p: torch.optim.SGD(p, lr=0.01, dampening=0.9),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, dampening=0.5),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    ],
)
def test_it_rests_where_the_gradients_of_loss_and_penalty_balance(make):
    weight = nn.Linear(1, 1, bias=False).double()
    optimizer = make(weight.parameters())
    rwalk = RWalk(weight, optimizer, RWalkConfig(ewc_lambda=1.0, penalty="proximal", proximal_rate="optimizer"))

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            (0.5 * (weight.weight - 1.0) ** 2).sum().backward()
            optimizer.step()

    steps(1)
    rwalk.consolidate()
    state = rwalk.state_dict()
    state["parameters"]["weight"] |= {
        "importance": torch.full((1, 1), 0.5).double(),
        "anchor": torch.zeros(1, 1).double(),
    }
    rwalk.load_state_dict(state)
    steps(4000)
    assert weight.weight.item() == pytest.approx(0.5, abs=0.01)  # minimises ½(θ − 1)² + ½θ²


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad])
def test_each_weight_is_pulled_as_far_as_its_optimizer_steps(make):
    ours, other = network(), network()
    optimizer, plain = make(ours.parameters(), lr=0.01), make(other.parameters(), lr=0.01)
    rwalk = RWalk(ours, optimizer, SETTINGS.replace(ewc_lambda=0.3))
    learn(ours, optimizer, 0, 12)
    learn(other, plain, 0, 12)
    rwalk.consolidate()
    importances, anchors = rwalk.importances(), {n: p.detach().clone() for n, p in ours.named_parameters()}

    def pull():
        for name, p in other.named_parameters():
            state, group = plain.state[p], plain.param_groups[0]
            if "exp_avg_sq" in state:
                second = state["exp_avg_sq"] / (1 - group["betas"][1] ** int(state["step"]))
            else:
                second = state["square_avg"] if "square_avg" in state else state["sum"]
            c = 2 * 0.3 * importances[name] * 0.01 / (second**0.5 + group["eps"])
            p.data = (p.data + c * anchors[name]) / (1 + c)

    learn(ours, optimizer, 1, 9)
    learn(other, plain, 1, 9, pull)
    for mine, expected in zip(ours.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("name", "gain"), [("sgd", 1.0), ("momentum", 10.0)])
def test_without_second_moments_it_is_the_step_by_the_learning_rate_as_often_as_a_gradient_acts(name, gain):
    models = [network(), network()]
    for model, rate, strength in zip(models, ("lr", "optimizer"), (2.0 * gain, 2.0), strict=True):
        optimizer = OPTIMIZERS[name](model.parameters())
        rwalk = RWalk(model, optimizer, SETTINGS.replace(ewc_lambda=strength, proximal_rate=rate))
        learn(model, optimizer, 0, 10)
        rwalk.consolidate()
        learn(model, optimizer, 1, 10)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("rate", ["lr", "optimizer"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@given(st.floats(-3.0, 6.0).map(lambda power: 10.0**power))
@settings(max_examples=4, deadline=None)
def test_no_strength_makes_it_diverge(rate, name, ewc_lambda):
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    rwalk = RWalk(model, optimizer, SETTINGS.replace(ewc_lambda=ewc_lambda, proximal_rate=rate))
    learn(model, optimizer, 0, 10)
    rwalk.consolidate()
    free, own = network(), {n: p.detach().clone() for n, p in model.named_parameters()}
    free.load_state_dict(model.state_dict())
    unheld = OPTIMIZERS[name](free.parameters())
    unheld.load_state_dict(optimizer.state_dict())
    learn(model, optimizer, 1, 30)
    learn(free, unheld, 1, 30)
    moved, would = (
        sum(float((p.detach() - own[n]).square().sum()) for n, p in m.named_parameters()) for m in (model, free)
    )
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    assert moved < 4.0 * would + 1e-6  # held, and never thrown


class Sign(torch.optim.Optimizer):
    """An optimizer that knows no learning rate."""

    def __init__(self, parameters, **defaults):
        super().__init__(parameters, {"size": 0.01, **defaults})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.sub_(parameter.grad.sign(), alpha=group["size"])


@pytest.mark.parametrize("defaults", [{}, {"lr": None}])
def test_optimizers_without_a_learning_rate_are_followed_where_none_is_needed(defaults):
    model = network()
    optimizer = Sign(model.parameters(), **defaults)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=1.0))
    for task in range(2):
        learn(model, optimizer, task, 12)
        rwalk.consolidate()
    assert rwalk.tasks == 2
    with pytest.raises(RWalkError, match=r"penalty='proximal' goes as far as the learning rate, and Sign has a group"):
        rwalk.config = rwalk.config.replace(penalty="proximal")
    assert rwalk.config.penalty == "gradient"
    rwalk.detach()
    with pytest.raises(RWalkError, match=r"penalty='proximal' goes as far as the learning rate, and Sign has a group"):
        RWalk(model, optimizer, SETTINGS)
