"""L2-SP against a loop written out for a linear model."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rwalk.models import IncrementalClassifier
from rwalk.training import L2SPPlugin, Naive
from training.toys import six_classes


def trained(model, plugin, experiences, lr=0.1):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    strategy = Naive(model=model, optimizer=optimizer, train_mb_size=7, plugins=[plugin])
    torch.manual_seed(5)
    strategy.train(experiences)
    return strategy


def test_training_is_that_of_a_loop_written_out():
    torch.manual_seed(1)
    model = nn.Linear(5, 6, dtype=torch.float64)
    weight, bias = (parameter.detach().clone() for parameter in model.parameters())
    plugin = L2SPPlugin(strength=0.7)
    trained(model, plugin, six_classes())
    torch.manual_seed(5)
    strength, anchor = 0.0, (weight, bias)
    for experience in six_classes():
        x, y = experience.dataset.x, experience.dataset.targets
        order = torch.randperm(len(x))
        for start in range(0, len(x), 7):
            chosen = order[start : start + 7]
            wrong = F.softmax(x[chosen] @ weight.T + bias, dim=1) - F.one_hot(y[chosen], 6)
            of_weight = wrong.T @ x[chosen] / len(chosen) + 2 * strength * (weight - anchor[0])
            of_bias = wrong.mean(0) + 2 * strength * (bias - anchor[1])
            weight, bias = weight - 0.1 * of_weight, bias - 0.1 * of_bias
        strength, anchor = 0.7, (weight, bias)
    torch.testing.assert_close(model.weight.detach(), weight, atol=1e-10, rtol=0)
    torch.testing.assert_close(model.bias.detach(), bias, atol=1e-10, rtol=0)
    torch.testing.assert_close(plugin.anchors["weight"], weight, atol=1e-10, rtol=0)


def test_what_grows_is_free_and_what_was_there_stays_held():
    model = nn.Sequential(IncrementalClassifier(5, 2)).double()
    plugin = L2SPPlugin(strength=1e3)
    strategy = trained(model, plugin, six_classes()[0], lr=1e-4)
    old = plugin.anchors["0.classifier.weight"]
    strategy.train(six_classes()[1])
    now = dict(model.named_parameters())["0.classifier.weight"].detach()
    assert old.shape == (2, 5)
    assert now.shape == (4, 5)
    assert 0.0 < float((now[:2] - old).abs().max()) < 1e-3
    again = L2SPPlugin()
    again.load_state_dict(plugin.state_dict())
    assert torch.equal(again.anchors["0.classifier.weight"], now)


def test_a_layer_that_was_frozen_for_an_experience_is_held_when_it_is_free_again():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 6)).double()
    first, second, third = six_classes()
    strategy = trained(model, L2SPPlugin(strength=5e3), first, lr=1e-4)  # each step goes back to the anchor
    model[0].requires_grad_(False)
    strategy.train(second)
    before = model[0].weight.detach().clone()
    model[0].requires_grad_(True)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    strategy.train(third)
    assert float((model[0].weight.detach() - before).abs().max()) < 1e-3


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(ValueError, match="strength="):
        L2SPPlugin(strength=strength)
