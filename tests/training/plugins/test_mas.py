"""Memory Aware Synapses against formulas written out for a linear model."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rwalk.models import IncrementalClassifier, build_model
from rwalk.training import MASPlugin, Naive
from training.toys import six_classes


def by_hand(weight, bias, x):
    """Mean of |∂‖Wx + b‖²/∂W| = |2 (Wx + b) xᵀ| and of |2 (Wx + b)|, sample by sample."""
    of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    for sample in x:
        for row in range(len(weight)):
            output = float(weight[row] @ sample + bias[row])
            of_bias[row] += abs(2 * output) / len(x)
            for column in range(len(sample)):
                of_weight[row, column] += abs(2 * output * float(sample[column])) / len(x)
    return of_weight, of_bias


def test_training_is_that_of_a_loop_written_out():
    torch.manual_seed(1)
    model = nn.Linear(5, 6, dtype=torch.float64)
    weight, bias = (parameter.detach().clone() for parameter in model.parameters())
    plugin = MASPlugin(strength=0.05)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    strategy = Naive(model=model, optimizer=optimizer, train_mb_size=7, train_epochs=2, plugins=[plugin])
    torch.manual_seed(5)
    strategy.train(six_classes())
    torch.manual_seed(5)
    importance, anchor = [torch.zeros_like(weight), torch.zeros_like(bias)], [weight.clone(), bias.clone()]
    for experience in six_classes():
        x, y = experience.dataset.x, experience.dataset.targets
        for _ in range(2):
            order = torch.randperm(len(x))
            for start in range(0, len(x), 7):
                chosen = order[start : start + 7]
                wrong = F.softmax(x[chosen] @ weight.T + bias, dim=1) - F.one_hot(y[chosen], 6)
                of_weight = wrong.T @ x[chosen] / len(chosen) + 0.1 * importance[0] * (weight - anchor[0])
                of_bias = wrong.mean(0) + 0.1 * importance[1] * (bias - anchor[1])
                weight, bias = weight - 0.1 * of_weight, bias - 0.1 * of_bias
        importance = [old + new for old, new in zip(importance, by_hand(weight, bias, x), strict=True)]
        anchor = [weight.clone(), bias.clone()]
    torch.testing.assert_close(model.weight.detach(), weight, atol=1e-10, rtol=0)
    torch.testing.assert_close(model.bias.detach(), bias, atol=1e-10, rtol=0)
    torch.testing.assert_close([plugin.importances[name] for name in ("weight", "bias")], importance)
    torch.testing.assert_close([plugin.anchors[name] for name in ("weight", "bias")], anchor)


def trained(model, plugin, experiences, lr=0.1):
    strategy = Naive(
        model=model, optimizer=torch.optim.SGD(model.parameters(), lr=lr), train_mb_size=10, plugins=[plugin]
    )
    strategy.train(experiences)
    return strategy


def test_what_grows_is_free_and_what_was_there_stays_held():
    model = nn.Sequential(IncrementalClassifier(5, 2)).double()
    plugin = MASPlugin(strength=1e3)
    strategy = trained(model, plugin, six_classes()[0], lr=1e-4)
    (weight, _), (old, _) = plugin.importances.values(), plugin.anchors.values()
    assert weight.shape == old.shape == (2, 5)
    strategy.train(six_classes()[1])
    now = dict(model.named_parameters())["0.classifier.weight"].detach()
    free, held = now[2:] - plugin.anchors["0.classifier.weight"][2:], now[:2] - old
    assert now.shape == (4, 5)
    assert float(free.abs().max()) == 0.0  # the anchor was set anew after learning
    assert float(held.abs().max()) < 1e-3


def test_a_part_of_the_samples_stands_for_all():
    torch.manual_seed(0)
    model = nn.Linear(5, 6, dtype=torch.float64)
    plugin = MASPlugin(samples=4)
    trained(model, plugin, six_classes()[0], lr=1e-3)
    chosen = six_classes()[0].dataset.x[[0, 6, 13, 19]]
    expected = by_hand(model.weight.detach(), model.bias.detach(), chosen)
    torch.testing.assert_close(plugin.importances["weight"], expected[0])


def test_gradients_of_a_batch_are_summed_before_their_size_is_taken():
    torch.manual_seed(0)
    model = nn.Linear(5, 6, dtype=torch.float64)
    plugin = MASPlugin(batch_size=8)
    trained(model, plugin, six_classes()[0], lr=1e-3)
    x, expected = six_classes()[0].dataset.x, torch.zeros(6, 5, dtype=torch.float64)
    for start in range(0, len(x), 8):
        part = x[start : start + 8]
        expected += (2 * (part @ model.weight.T + model.bias).T @ part).abs().detach() / len(x)
    torch.testing.assert_close(plugin.importances["weight"], expected)
    assert not torch.allclose(by_hand(model.weight.detach(), model.bias.detach(), x)[0], expected, rtol=0.05)


@pytest.mark.parametrize("decay", [0.0, 0.25])
def test_what_past_experiences_gave_decays(decay):
    def importances(count, decay):
        torch.manual_seed(0)
        model = nn.Linear(5, 6, dtype=torch.float64)
        plugin = MASPlugin(strength=0.0, decay=decay)  # so that training is the same whatever is held
        trained(model, plugin, six_classes()[:count])
        return plugin.importances["weight"]

    first, last = importances(1, 1.0), importances(2, 1.0) - importances(1, 1.0)
    torch.testing.assert_close(importances(2, decay), decay * first + last)


@pytest.mark.parametrize("heads", ["masked", "multi"])
def test_masked_scores_have_no_part_and_everything_stays_finite(heads):
    model = build_model("mlp", (5,), 6, heads=heads, hidden=(4,)).double()
    plugin = MASPlugin()
    trained(model, plugin, six_classes(task_labels=heads == "multi"))
    assert all(bool(values.isfinite().all()) for values in plugin.importances.values())
    assert any(float(values.max()) > 0 for values in plugin.importances.values())
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_dropout_is_off_while_it_looks_and_on_afterwards():
    model = nn.Sequential(nn.Linear(5, 6, dtype=torch.float64), nn.Dropout(0.5))
    plugin = MASPlugin()
    trained(model, plugin, six_classes()[0])
    expected = by_hand(model[0].weight.detach(), model[0].bias.detach(), six_classes()[0].dataset.x)
    torch.testing.assert_close(plugin.importances["0.weight"], expected[0])
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, "strength=-1.0"),
        ({"samples": 0}, "samples=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"decay": 1.5}, "decay=1.5"),
    ],
)
def test_settings_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=f"{message}: expected"):
        MASPlugin(**options)
