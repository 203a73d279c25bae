"""A fast way to single samples' gradients is taken where it was seen to give the right ones."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from rwalk import RWalk


class TiedByFunction(nn.Module):
    """A language model whose output layer is the embedding, in a function that no closed form sees."""

    def __init__(self):
        super().__init__()
        self.embedding, self.body = nn.Embedding(10, 6), nn.Linear(6, 6)

    def forward(self, x):
        return nn.functional.linear(torch.tanh(self.body(self.embedding(x))), self.embedding.weight)


@pytest.mark.parametrize("ignored", [0, 1, 2, 5, 30, 39])
@pytest.mark.parametrize("size", [40, 8])
def test_a_way_is_compared_on_samples_that_have_a_gradient(ignored, size):
    torch.manual_seed(0)
    model, x, y = TiedByFunction().double(), torch.randint(0, 10, (40, 4)), torch.randint(0, 10, (40, 4))
    y[:ignored] = -100
    rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1))
    rwalk.protect(zip(x.split(size), y.split(size), strict=True), labels="data", class_dim=2)
    right = torch.zeros_like(model.embedding.weight)
    for one, label in zip(x[ignored:], y[ignored:], strict=True):
        loss = cross_entropy(model(one), label, reduction="sum")
        right += torch.autograd.grad(loss, model.embedding.weight)[0].square()
    torch.testing.assert_close(rwalk.importances("fisher")["embedding.weight"], right / (40 - ignored))


def test_a_way_is_compared_where_each_parameter_has_its_first_gradient():
    """The first samples know nothing of a layer whose weight is used by a function beside its own call."""

    class Rarely(nn.Module):
        def __init__(self):
            super().__init__()
            self.often, self.rare = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)

        def forward(self, x):
            rare = torch.tanh(self.rare(x)) + nn.functional.linear(x, self.rare.weight)
            return self.often(x) + x[:, :1].clamp(min=0.0) * rare

    torch.manual_seed(0)
    model, x = Rarely().double(), torch.randn(12, 3).double()
    x[:4, 0], x[4:, 0] = -1.0, 1.0
    y = torch.arange(12) % 3
    rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1))
    rwalk.protect([(x, y)], labels="data")
    right = torch.zeros_like(model.rare.weight)
    for one, label in zip(x.split(1), y.split(1), strict=True):
        right += torch.autograd.grad(cross_entropy(model(one), label), model.rare.weight)[0].square()
    torch.testing.assert_close(rwalk.importances("fisher")["rare.weight"], right / 12)
