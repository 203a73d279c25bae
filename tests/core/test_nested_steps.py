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
