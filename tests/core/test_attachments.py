"""An optimizer that is put in the place of the followed one without a word is refused before it moves anything."""

import gc
import subprocess
import sys

import pytest
import torch
from torch import nn

from reference.problems import assert_same, assert_same_state, batches, tanh_net, train, weights
from rwalk import RWalk, RWalkConfig, RWalkError

CONFIG = RWalkConfig(ewc_lambda=1.0, delta_t=4)


class Wrapper(torch.optim.Optimizer):
    """Takes its steps by another optimizer, under a name that nobody looks for."""

    def __init__(self, inner):
        super().__init__(inner.param_groups, {})
        self.inside = inner

    def step(self, closure=None):
        return self.inside.step(closure)


def followed():
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, optimizer, RWalk(model, optimizer, CONFIG)


def test_the_first_step_of_a_replacement_is_refused_and_changes_nothing():
    model, optimizer, rwalk = followed()
    train(model, optimizer, task=0, steps=5)
    before, state = weights(model), rwalk.state_dict()
    other = torch.optim.AdamW([model[2].bias], lr=0.01)
    refused = r"AdamW is about to move parameters that RWalk follows .*\(SGD\).*rwalk\.attach\(optimizer\)"
    with pytest.raises(RWalkError, match=refused):
        train(model, other, task=0, steps=1)
    assert_same(weights(model), before)
    assert_same_state(rwalk.state_dict(), state)
    assert other.state == {}


def test_once_it_is_attached_the_replacement_goes_on():
    model, optimizer, rwalk = followed()
    train(model, optimizer, task=0, steps=5)
    other = torch.optim.Adam(model.parameters(), lr=0.01)
    rwalk.detach()
    rwalk.attach(other)
    train(model, other, task=0, steps=2)
    assert rwalk.steps == 7
    with pytest.raises(RWalkError, match=r"SGD is about to move .*\(Adam\)"):
        train(model, optimizer, task=0, steps=1)


def test_without_rwalk_another_optimizer_may_go_on():
    model, optimizer, rwalk = followed()
    train(model, optimizer, task=0, steps=5)
    rwalk.detach()
    train(model, torch.optim.Adam(model.parameters()), task=0, steps=2)
    assert rwalk.steps == 5


def test_an_rwalk_that_was_dropped_with_its_optimizer_is_in_nobodys_way():
    gc.disable()  # the two hold each other
    try:
        model, optimizer, rwalk = followed()
        train(model, optimizer, task=0, steps=1)
        del optimizer, rwalk
        train(model, torch.optim.Adam(model.parameters()), task=0, steps=2)
    finally:
        gc.enable()


def test_optimizers_of_other_parameters_are_left_alone():
    model, optimizer, rwalk = followed()
    other = nn.Linear(3, 2).double()
    for _ in range(2):
        train(model, optimizer, task=0, steps=2)
        train(other, torch.optim.Adam(other.parameters()), task=0, steps=2)
    assert rwalk.steps == 4


@pytest.mark.parametrize("given", ["wrapper", "inner"])
def test_an_optimizer_inside_another_takes_its_steps(given):
    model = tanh_net()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapper = Wrapper(inner)
    rwalk = RWalk(model, wrapper if given == "wrapper" else inner, CONFIG)
    train(model, wrapper, task=0, steps=3)
    assert rwalk.steps == 3


def test_a_step_that_failed_does_not_let_another_optimizer_pass():
    model, optimizer, rwalk = followed()
    train(model, optimizer, task=0, steps=1)

    def fails():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        optimizer.step(fails)
    with pytest.raises(RWalkError, match="Adam is about to move"):
        train(model, torch.optim.Adam(model.parameters()), task=0, steps=1)
    train(model, optimizer, task=0, steps=1)
    assert rwalk.steps == 2


def test_a_closure_that_steps_another_optimizer_of_the_same_parameters_is_its_own_business():
    model, optimizer, rwalk = followed()
    other = torch.optim.SGD(model.parameters(), lr=0.0)
    x, y = next(batches(0, 1))

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        other.step()
        return loss

    optimizer.step(closure)
    assert rwalk.steps == 1


def test_importing_rwalk_watches_nothing():
    program = "import rwalk; from torch.optim.optimizer import _global_optimizer_pre_hooks as hooks; print(len(hooks))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "0"
