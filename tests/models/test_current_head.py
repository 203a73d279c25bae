"""A single head that learns among the classes at hand."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from rwalk.models import CurrentClassifier


def arriving(*classes):
    return SimpleNamespace(classes_in_this_experience=classes)


@pytest.fixture
def head():
    torch.manual_seed(0)
    head = CurrentClassifier(5, n_classes=6)
    head.adaptation(arriving(0, 3))
    head.adaptation(arriving(1, 4))
    return head


def test_its_loss_is_that_of_a_softmax_over_the_experiences_own_classes(head):
    x, own = torch.randn(7, 5), torch.tensor([1, 4])
    y = torch.tensor([0, 1, 1, 0, 0, 1, 0])
    F.cross_entropy(head(x), own[y]).backward()
    found = head.classifier.weight.grad.clone()
    head.zero_grad()
    F.cross_entropy(head.classifier(x)[:, own], y).backward()
    assert torch.allclose(found, head.classifier.weight.grad)
    others = [row for row in range(6) if row not in (1, 4)]
    assert not found[others].any()


def test_it_is_tested_on_all_classes_seen_and_no_others(head):
    x = torch.randn(500, 5)
    plain = head.eval().classifier(x)
    plain[:, [2, 5]] = -torch.inf
    assert torch.equal(head(x).argmax(dim=1), plain.argmax(dim=1))
    assert set(head(x).argmax(dim=1).tolist()) == {0, 1, 3, 4}


def test_evaluating_an_experience_leaves_the_classes_at_hand(head):
    head.eval().adaptation(arriving(0, 3))
    x = torch.randn(9, 5)
    assert set(head.train()(x).argmax(dim=1).tolist()) <= {1, 4}


def test_a_checkpoint_keeps_the_classes(head):
    other = CurrentClassifier(5, n_classes=6)
    other.load_state_dict(head.state_dict())
    x = torch.randn(9, 5)
    assert torch.equal(other(x), head(x))
    assert torch.equal(other.eval()(x), head.eval()(x))
