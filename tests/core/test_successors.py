"""Another optimizer, or another model of the same names, takes over between tasks."""

import pytest
import torch
from torch import nn

from reference.problems import assert_same, assert_same_state, tanh_net, train, weights
from rwalk import RWalk, RWalkConfig, RWalkError

CONFIG = RWalkConfig(ewc_lambda=1.0, delta_t=4)


@pytest.fixture
def learned():
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, CONFIG)
    train(model, optimizer, task=0, steps=10)
    rwalk.consolidate()
    rwalk.detach()
    return model, optimizer, rwalk


def test_a_new_optimizer_of_the_model_goes_on_like_the_old_one(learned):
    model, optimizer, rwalk = learned
    other = tanh_net()
    other.load_state_dict(model.state_dict())
    same = torch.optim.SGD(other.parameters(), lr=0.1)
    reference = RWalk(other, same, CONFIG)
    reference.load_state_dict(rwalk.state_dict())
    new = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk.attach(new)
    assert rwalk.optimizer is new
    train(model, new, task=1, steps=9)
    train(other, same, task=1, steps=9)
    assert_same(weights(model), weights(other))
    assert_same_state(rwalk.state_dict(), reference.state_dict())
    rwalk.detach()
    train(model, optimizer, task=1, steps=1)
    assert rwalk.steps == 19  # the old one is followed no more


def test_a_new_model_takes_over_importances_and_anchors(learned):
    model, _, rwalk = learned
    copy = tanh_net(seed=3)
    copy.load_state_dict(model.state_dict())
    optimizer = torch.optim.SGD(copy.parameters(), lr=0.1)
    past = rwalk.importances()
    rwalk.attach(optimizer, copy)
    assert rwalk.model is copy
    train(copy, optimizer, task=1, steps=6)
    assert_same(rwalk.importances(), past)
    assert rwalk.penalty().item() > 0


def test_a_model_that_lacks_a_parameter_is_refused_and_changes_nothing(learned):
    model, optimizer, rwalk = learned
    before = rwalk.state_dict()
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()
    with pytest.raises(RWalkError, match=r"no longer has '2\.weight'"):
        rwalk.attach(torch.optim.SGD(other.parameters(), lr=0.1), other)
    assert rwalk.model is model
    assert rwalk.optimizer is optimizer
    assert not rwalk.attached
    rwalk.attach()
    assert_same_state(rwalk.state_dict(), before)
    train(model, optimizer, task=1, steps=1)
    assert rwalk.steps == 11
