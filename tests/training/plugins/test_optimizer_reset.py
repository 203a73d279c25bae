"""An optimizer that remembers nothing, against a new one for each experience."""

import copy

import pytest
import torch

from rwalk.training import OptimizerResetPlugin
from training.toys import Recorder, naive, net, toy

OPTIMIZERS = [
    lambda model: torch.optim.Adam(model.parameters(), 0.01),
    lambda model: torch.optim.SGD(model.parameters(), 0.1, momentum=0.9),
]


def steps(make, plugins, *, renewed=False):
    """The weights after each step over two experiences."""
    model, weights = net(), []
    recorder = Recorder(lambda s: weights.append(copy.deepcopy(s.model.state_dict())), "after_update")
    strategy = naive(model, optimizer=make(model), plugins=[*plugins, recorder], train_epochs=2)
    torch.manual_seed(3)
    for experience in toy().train_stream:
        if renewed:
            strategy.optimizer = make(model)
        strategy.train(experience)
    return weights


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_training_is_that_with_a_new_optimizer_for_each_experience(make):
    ours, theirs, kept = steps(make, [OptimizerResetPlugin()]), steps(make, [], renewed=True), steps(make, [])
    assert len(ours) == len(theirs) == 12
    for our, their in zip(ours, theirs, strict=True):
        for name, value in our.items():
            assert torch.equal(value, their[name])
    assert any(not torch.equal(value, kept[-1][name]) for name, value in ours[-1].items())


def test_the_settings_of_the_groups_stay():
    model = net()
    strategy = naive(model, plugins=[OptimizerResetPlugin()])
    strategy.optimizer.param_groups[0]["lr"] = 0.03
    for experience in toy().train_stream:
        strategy.train(experience)
    assert strategy.optimizer.param_groups[0]["lr"] == 0.03
