"""Learning without Forgetting against twins that go sample by sample and class by class."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from rwalk.models import build_model
from rwalk.training import BasePlugin, LwFPlugin, Naive
from rwalk.training.plugins.lwf import distillation
from training.toys import six_classes

numbers = st.floats(-5.0, 5.0, allow_subnormal=False)


def softened(scores, temperature):
    """Probabilities of one sample."""
    powers = [math.exp(float(score) / temperature) for score in scores]
    return [power / sum(powers) for power in powers]


def divergence(student, teacher, temperature):
    """The distillation of a batch, in plain numbers."""
    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        pairs = zip(softened(theirs, temperature), softened(ours, temperature), strict=True)
        total += sum(p * math.log(p / q) for p, q in pairs)
    return temperature**2 * total / len(student)


@given(
    st.integers(1, 4).flatmap(
        lambda c: st.lists(st.lists(numbers, min_size=2 * c, max_size=2 * c), min_size=1, max_size=4)
    ),
    st.floats(0.5, 5.0),
)
def test_the_distillation_is_that_of_its_formula(rows, temperature):
    both = torch.tensor(rows, dtype=torch.float64)
    student, teacher = both.chunk(2, dim=1)
    found = distillation(student, teacher, temperature)
    assert float(found) == pytest.approx(divergence(student.tolist(), teacher.tolist(), temperature), abs=1e-9)
    assert float(found) >= -1e-12


def test_training_is_that_of_a_loop_written_out():
    torch.manual_seed(1)
    model = nn.Linear(5, 6, dtype=torch.float64)
    weight, bias = (parameter.detach().clone().requires_grad_() for parameter in model.parameters())
    plugin = LwFPlugin(strength=0.7, temperature=3.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    strategy = Naive(model=model, optimizer=optimizer, train_mb_size=7, train_epochs=2, plugins=[plugin])
    torch.manual_seed(5)
    strategy.train(six_classes())
    torch.manual_seed(5)
    seen, old = [], None
    for experience in six_classes():
        x, y = experience.dataset.x, experience.dataset.targets
        for _ in range(2):
            order = torch.randperm(len(x))
            for start in range(0, len(x), 7):
                chosen = order[start : start + 7]
                scores = x[chosen] @ weight.T + bias
                loss = F.cross_entropy(scores, y[chosen])
                if old is not None:
                    before = x[chosen] @ old[0].T + old[1]
                    for ours, theirs in zip(scores[:, seen], before[:, seen], strict=True):
                        p, q = (F.softmax(row / 3.0, dim=0) for row in (theirs, ours))
                        loss = loss + 0.7 * 9.0 * (p * (p.log() - q.log())).sum() / len(chosen)
                gradients = torch.autograd.grad(loss, [weight, bias])
                with torch.no_grad():
                    for parameter, gradient in zip((weight, bias), gradients, strict=True):
                        parameter.sub_(0.1 * gradient)
        seen += experience.classes_in_this_experience
        old = weight.detach().clone(), bias.detach().clone()
    torch.testing.assert_close(model.weight, weight, atol=1e-10, rtol=0)
    torch.testing.assert_close(model.bias, bias, atol=1e-10, rtol=0)


class Added(BasePlugin):
    """Notes what the plugins before it have added to the plain loss."""

    def __init__(self):
        self.notes = []

    def before_backward(self, strategy, **kwargs):
        plain = F.cross_entropy(strategy.mb_output, strategy.mb_y)
        self.notes.append((strategy.experience, strategy.mb_x, float((strategy.loss - plain).detach())))


@pytest.mark.parametrize("heads", ["masked", "growing", "multi"])
def test_only_classes_of_the_past_are_held_each_by_its_own_head(heads):
    torch.manual_seed(2)
    model = build_model("mlp", (5,), 6, heads=heads, hidden=(4,)).double()
    plugin, added = LwFPlugin(strength=2.0, temperature=1.5), Added()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # so that teacher and student differ by hand only
    strategy = Naive(model=model, optimizer=optimizer, train_mb_size=60, plugins=[plugin, added])
    first, second, third = six_classes(task_labels=heads == "multi")
    strategy.train(first)
    assert added.notes[0][2] == 0.0
    strategy.train(second)
    assert added.notes[1][2] == pytest.approx(0.0, abs=1e-12)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert all(torch.equal(before[name], value) for name, value in plugin.teacher.state_dict().items())
    strategy.train(third)
    x, found = added.notes[2][1:]
    groups = [(0, [0, 1]), (1, [2, 3])] if heads == "multi" else [(0, [0, 1, 2, 3])]
    expected = 0.0
    model.eval()
    for task, classes in groups:
        inputs = (x, torch.full((len(x),), task)) if heads == "multi" else (x,)
        old = build_model("mlp", (5,), 6, heads=heads, hidden=(4,)).double().eval()
        old.load_state_dict(before)
        with torch.no_grad():
            pair = [network(*inputs)[:, classes].tolist() for network in (model, old)]
        expected += 2.0 * divergence(*pair, 1.5)
    assert found == pytest.approx(expected, abs=1e-9)
    assert expected > 0.01


def test_an_output_layer_that_masks_past_classes_in_training_is_refused_before_any():
    model = build_model("mlp", (5,), 6, heads="current", hidden=(4,)).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    strategy = Naive(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), plugins=[LwFPlugin()])
    with pytest.raises(ValueError, match=r"classifier is a CurrentClassifier, which masks them .*heads='masked'"):
        strategy.train(six_classes())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not strategy.is_training


def test_the_teacher_is_no_part_of_training():
    model = nn.Sequential(nn.Linear(5, 6, dtype=torch.float64), nn.Dropout(0.5))
    plugin = LwFPlugin()
    strategy = Naive(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), plugins=[plugin])
    strategy.train(six_classes()[0])
    frozen = [parameter.clone() for parameter in plugin.teacher.parameters()]
    taught = plugin.teacher
    assert not any(module.training for module in taught.modules())
    strategy.train(six_classes()[1])
    assert all(torch.equal(a, b) for a, b in zip(frozen, taught.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in taught.parameters())
    assert model.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, "strength=-1.0: expected"),
        ({"strength": math.nan}, "strength=nan: expected"),
        ({"temperature": 0.0}, "temperature=0.0: expected"),
    ],
)
def test_settings_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LwFPlugin(**options)
