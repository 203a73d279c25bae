"""Labels of all the kinds that loaders give, batch by batch: taken as what they are, or refused in words."""

import pytest
import torch
from torch import nn

from rwalk import RWalk, RWalkConfig, RWalkError


def rwalk_on(model, **settings):
    return RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), RWalkConfig(scaling="none", **settings))


def network(outputs=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs)).double()


def inputs(count, seed=1):
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)).double()


def importances(batches, *, outputs=3, **options):
    rwalk = rwalk_on(network(outputs))
    done = rwalk.protect(batches, **options)
    return done, rwalk.importances()


def same(found, expected, factor=1.0):
    return all(torch.allclose(found[name], factor * value, rtol=1e-10, atol=0.0) for name, value in expected.items())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_class_numbers_of_any_integer_dtype(dtype):
    x, y = inputs(6), torch.tensor([0, 1, 2, 2, 156, 1])
    _, expected = importances([(x, y)], outputs=200, labels="data")
    done, found = importances([(x, y.to(dtype))], outputs=200, labels="data")
    assert done.samples == 6
    assert same(found, expected)


@pytest.mark.parametrize("labels", ["data", "sampled", "argmax"])
def test_samples_whose_label_does_not_count_are_none(labels):
    x, y = inputs(6), torch.tensor([0, 1, -100, 2, -100, -100])
    done, found = importances([(x, y), (x[:0], y[:0])], labels=labels)
    assert done.samples == 3
    if labels != "sampled":
        _, expected = importances([(x[y >= 0], y[y >= 0])], labels=labels)
        assert same(found, expected)
    with pytest.raises(RWalkError, match=r"there are no samples: none of 2 has a label that counts \(-100 does not\)"):
        importances([(x[4:], y[4:])], labels=labels)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_labels_that_nobody_asks_for_need_not_fit(likelihood):
    x, classes = inputs(6), torch.tensor([0, 1, 2, 2, 1, 0])
    _, expected = importances([x], likelihood=likelihood)
    assert same(importances([(x, classes)], likelihood=likelihood)[1], expected)
    with pytest.raises(RWalkError, match=r"shape \(6, 3\) and labels of shape \(6,\).*one number for each output"):
        importances([(x, classes)], likelihood=likelihood, labels="data")


@pytest.mark.parametrize("labels", ["sampled", "argmax"])
def test_classes_are_drawn_where_the_datas_labels_are_probabilities(labels):
    x = inputs(6)
    soft = torch.randn(6, 3, generator=torch.Generator().manual_seed(2)).double().softmax(1)
    _, expected = importances([x], labels=labels)
    assert same(importances([(x, soft)], likelihood="categorical", labels=labels)[1], expected)


def test_marks_that_turn_out_to_be_numbers_are_refused():
    rwalk = rwalk_on(network())
    zeros, numbers = torch.zeros(2, 3).double(), torch.full((2, 3), 7.5).double()
    with pytest.raises(RWalkError, match=r"all 0 or 1, as marks of independent labels are, and now one is 7\.5; say"):
        rwalk.protect([(inputs(2), zeros), (inputs(2), numbers)])
    assert rwalk.tasks == 0
    rwalk.protect([(inputs(2), zeros), (inputs(2), numbers)], likelihood="gaussian")


def test_single_samples_are_judged_together():
    """One row that adds up to 1 may be a mark or a class; several of them leave it open as much as one batch does."""
    one_hot = torch.eye(3).double()
    alone = [(inputs(1, seed), one_hot[seed : seed + 1]) for seed in range(3)]
    with pytest.raises(RWalkError, match="add up to 1 in every sample"):
        importances(alone)
    done, _ = importances([*alone, (inputs(1), torch.tensor([[1.0, 1.0, 0.0]]).double())])
    assert (done.likelihood, done.samples) == ("bernoulli", 4)


@pytest.mark.parametrize("how", ["no_grad", "detach"])
def test_log_probabilities_without_a_graph_are_refused(how):
    model = network()

    def log_prob(model, batch, rng):
        with torch.set_grad_enabled(how != "no_grad"):
            return model(batch).log_softmax(1)[:, 0].detach()

    with pytest.raises(RWalkError, match="do not depend on the model's weights: they were computed under"):
        rwalk_on(model).protect([inputs(4)], log_prob=log_prob)


def test_data_that_was_made_in_inference_mode():
    with torch.inference_mode():
        x = inputs(6)
    assert same(importances([x])[1], importances([inputs(6)])[1])
