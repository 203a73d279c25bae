"""An optimizer whose step calls its parent's fires torch's hooks twice; RWalk counts one step."""

import pytest
import torch
from torch import nn

from rwalk import RWalk, RWalkConfig


class Child(torch.optim.SGD):
    def step(self, closure=None):
        return super().step(closure)


class FailsOnce(torch.optim.SGD):
    failed = False

    def step(self, closure=None):
        if not self.failed:
            self.failed = True
            raise OSError("interrupted")
        return super().step(closure)


def trained(optimizer_class, with_closure):
    torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)  # torch hooks a class when it is first used
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = optimizer_class(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=2.0, delta_t=3))
    for _ in range(3):
        for _ in range(7):
            x = torch.randn(4, 3)

            def closure(x=x):
                optimizer.zero_grad()
                loss = model(x).square().sum()
                loss.backward()
                return loss

            if with_closure:
                optimizer.step(closure)
            else:
                closure()
                try:
                    optimizer.step()
                except OSError:
                    closure()
                    optimizer.step()
        rwalk.consolidate()
    return model, rwalk


@pytest.mark.parametrize("with_closure", [False, True])
def test_a_step_inside_a_step_counts_once(with_closure):
    expected, plain = trained(torch.optim.SGD, with_closure)
    found, nested = trained(Child, with_closure)
    assert nested.steps == plain.steps == 21
    assert torch.equal(found.weight, expected.weight)
    for name, importance in plain.importances().items():
        assert torch.equal(nested.importances()[name], importance)


def test_after_a_step_that_raised_it_can_be_attached_anew():
    model = nn.Linear(3, 2)
    optimizer = FailsOnce(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    model(torch.ones(4, 3)).sum().backward()
    with pytest.raises(OSError, match="interrupted"):
        optimizer.step()
    rwalk.detach()
    rwalk.attach()
    optimizer.step()
    assert rwalk.steps == 1


def test_a_step_that_raised_and_is_taken_again_with_new_gradients_counts_once():
    expected, plain = trained(torch.optim.SGD, with_closure=False)
    found, retried = trained(FailsOnce, with_closure=False)
    assert retried.steps == plain.steps
    assert torch.equal(found.weight, expected.weight)


class Halves(torch.optim.SGD):
    """Changes the gradients before its parent steps, as gradient centralisation does."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad.mul_(0.5)
        return super().step(closure)


def test_a_step_that_changes_gradients_before_its_parents_counts_once():
    torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    model = nn.ParameterDict({"p": nn.Parameter(torch.zeros(1))})
    optimizer = Halves(model.parameters(), lr=1.0)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=3.0, damping=1.0))
    for _ in range(2):
        model["p"].grad = torch.full((1,), 4.0)
        optimizer.step()
        rwalk.consolidate()
    assert rwalk.steps == 2
    assert rwalk.importances("fisher")["p"].item() == pytest.approx(16.0)  # what came in
    assert model["p"].item() == -2.0 - 2.0  # at the anchor the penalty adds nothing
    model["p"].grad = torch.zeros(1)
    with torch.no_grad():
        model["p"].add_(1.0)
    optimizer.step()
    pull = 2 * 3.0 * 2.0 * 1.0  # 2λ(F + s)(θ − θ*)
    assert model["p"].item() == pytest.approx(-4.0 + 1.0 - pull / 2, rel=1e-6)


class Fails(torch.optim.SGD):
    fails = False

    def step(self, closure=None):
        if self.fails:
            raise OSError("interrupted")
        return super().step(closure)


@pytest.mark.parametrize("backend", ["eager", "auto"])
@pytest.mark.parametrize("tasks", [0, 1])
def test_new_gradients_in_the_memory_of_old_ones_are_new(backend, tasks):
    model = nn.Linear(30, 30)
    optimizer = Fails(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(ewc_lambda=1.0, backend=backend))

    def step():
        optimizer.zero_grad()
        model(torch.ones(1, 30)).sum().backward()
        optimizer.step()

    step()
    if tasks:
        rwalk.consolidate()
    for _ in range(20):
        optimizer.fails = True
        with pytest.raises(OSError, match="interrupted"):
            step()
        optimizer.fails = False
        step()
    assert rwalk.steps == 21
