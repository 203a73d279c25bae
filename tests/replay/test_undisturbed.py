"""A model that was looked at is as it was."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn

from replay.models import trained_looking
from rwalk.replay.undisturbed import undisturbed


class Restless(nn.Module):
    """Writes to a buffer, replaces another, and draws numbers, in any mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("latest", torch.zeros(1))
        self.register_buffer("nothing", None)

    def forward(self, x):
        self.calls += 1
        self.latest = x.sum().reshape(1)
        self.nothing = x.sum()
        return x + torch.randn_like(x)


def restless():
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(noise=Restless(), norm=nn.BatchNorm1d(4), drop=nn.Dropout(), out=nn.Linear(4, 2)))


def look(model, width=4):
    with undisturbed(model):
        return model(torch.randn(3, width))


def everything(model):
    modes = [module.training for module in model.modules()]
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return copy.deepcopy(model.state_dict()), modes, gradients, torch.get_rng_state()


def assert_same(one, other):
    torch.testing.assert_close(one[0], other[0], rtol=0, atol=0)
    assert one[1] == other[1]
    torch.testing.assert_close(one[2], other[2], rtol=0, atol=0)
    assert torch.equal(one[3], other[3])


@pytest.mark.parametrize("fails", [False, True])
def test_modes_buffers_gradients_and_generator_are_as_they_were(fails):
    model = restless()
    model(torch.randn(5, 4)).sum().backward()
    model.norm.eval()  # not all in one mode
    model.noise.nothing = None
    buffers = dict(model.named_buffers())
    before = everything(model)
    if fails:
        with pytest.raises(RuntimeError):
            look(model, width=5)  # noise is called first, and takes any
    else:
        look(model)
    assert_same(everything(model), before)
    assert model.noise.nothing is None
    assert all(dict(model.named_buffers())[name] is buffer for name, buffer in buffers.items())


def test_without_it_the_same_look_would_leave_traces():
    model = restless()
    before = everything(model)
    model(torch.randn(3, 4))
    after = everything(model)
    assert not torch.equal(after[0]["noise.calls"], before[0]["noise.calls"])
    assert not torch.equal(after[3], before[3])


def test_inside_dropout_is_off_and_statistics_are_the_running_ones():
    model = trained_looking()
    x = torch.randn(7, 4)
    expected = copy.deepcopy(model).eval()(x)
    with undisturbed(model):
        found = model(x)
    assert torch.equal(found, expected)
    assert not found.requires_grad


def test_modes_are_set_without_calling_what_a_model_makes_of_train_and_eval():
    class Merges(nn.Linear):
        calls = 0

        def train(self, mode=True):
            self.calls += 1
            return super().train(mode)

    model = Merges(4, 2)
    look(model)
    assert model.calls == 0
    assert model.training


def test_a_graph_that_is_still_needed_can_be_used_afterwards():
    model = trained_looking().eval()
    loss = model(torch.randn(5, 4)).sum()
    look(model)
    loss.backward()  # buffers that were saved for it have not been written to
    assert model.classify.weight.grad is not None
