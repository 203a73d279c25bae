"""Masked and growing output layers, against cross-entropy on a subset and a large layer with copied weights."""

import pickle
from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from models.arriving import experience, features, loss_over
from reference.problems import assert_same, gradients, weights
from rwalk.models import IncrementalClassifier, MaskedClassifier, grow

HEADS = {
    "masked": lambda **options: MaskedClassifier(3, 7, **options),
    "growing": lambda **options: IncrementalClassifier(3, **options),
}
CLASSES = st.lists(st.integers(0, 6), min_size=1, max_size=7, unique=True).map(sorted)


@pytest.fixture(params=HEADS)
def head(request):
    torch.manual_seed(0)
    return HEADS[request.param]()


@pytest.mark.parametrize("kind", HEADS)
@given(classes=CLASSES, scale=st.sampled_from([1.0, 1e4, 1e30]), data=st.data())
def test_loss_gradient_and_answer_are_those_over_the_classes_seen(kind, classes, scale, data):
    masked = HEADS[kind]()
    masked.adaptation(experience(*classes))
    x = scale * features(5, 3)
    labels = torch.tensor(data.draw(st.lists(st.sampled_from(classes), min_size=5, max_size=5)))
    plain = deepcopy(masked.classifier)
    scores = masked(x)
    loss, expected = F.cross_entropy(scores, labels), loss_over(plain(x), labels, classes)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(gradients(masked.classifier)[name], gradient)
    rest = [label for label in range(scores.shape[1]) if label not in classes]
    assert not masked.classifier.weight.grad[rest].any()
    by_hand = [max(classes, key=lambda label: row[label].item()) for row in plain(x).detach()]
    assert scores.argmax(dim=1).tolist() == by_hand


def test_masking_holds_in_evaluation_as_well(head):
    head.adaptation(experience(1, 4))
    x = 10 * features(200, 3)
    trained = head(x)
    assert set(trained.argmax(dim=1).tolist()) == {1, 4}
    assert torch.equal(head.eval()(x)[:, :5], trained[:, :5])


def test_before_the_first_experience_nothing_is_masked(head):
    x = features(4, 3)
    assert torch.equal(head(x), head.classifier(x))


def test_an_evaluation_marks_nothing_as_seen_and_moves_no_parameter(head):
    head.adaptation(experience(0, 1))
    seen, before = head.active_units.clone(), weights(head)
    random = torch.get_rng_state()
    head.eval().adaptation(experience(4, 6))
    assert torch.equal(head.active_units, seen)
    assert torch.equal(torch.get_rng_state(), random)
    assert_same(weights(head), before)
    scores = head(features(30, 3))
    assert scores.shape == (30, 7)
    assert set(scores.argmax(dim=1).tolist()) <= {0, 1}
    loss = F.cross_entropy(scores, torch.full((30,), 6))
    assert not loss.isnan()


def test_training_goes_on_as_it_was_after_an_evaluation(head):
    head.adaptation(experience(0, 1))
    x = features(4, 3)
    before = head(x)
    head.eval().adaptation(experience(6))
    assert torch.equal(head.train()(x), before)


def test_without_masking_all_outputs_count():
    for head in (MaskedClassifier(3, 7, masking=False), IncrementalClassifier(3, masking=False)):
        head.adaptation(experience(6))
        x = features(4, 3)
        assert torch.equal(head(x), head.classifier(x))
        assert head.active_units.tolist() == [False] * 6 + [True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_masked_with_their_own_lowest_number(dtype, head):
    head.to(dtype).adaptation(experience(2, 5))
    scores = head(features(9, 3).to(dtype))
    assert scores.dtype is dtype
    assert scores.isfinite().all()
    assert set(scores.argmax(dim=1).tolist()) <= {2, 5}
    probabilities = scores.softmax(dim=1)
    assert not (probabilities * scores.log_softmax(dim=1)).isnan().any()
    assert torch.equal(probabilities[:, [0, 1, 3, 4]], torch.zeros(9, 4, dtype=dtype))


def test_a_class_without_an_output_is_named_and_nothing_changes():
    head = MaskedClassifier(3, 7)
    with pytest.raises(ValueError, match=r"class 9, but the output layer has 7 outputs .* n_classes=10"):
        head.adaptation(experience(0, 9))
    assert not head.active_units.any()


@pytest.mark.parametrize("outputs", [0, -1])
def test_an_output_layer_has_an_output(outputs):
    for build in (MaskedClassifier, IncrementalClassifier):
        with pytest.raises(ValueError, match=f"{build.__name__} with {outputs} outputs: expected at least 1"):
            build(3, outputs)


@given(st.lists(CLASSES, min_size=1, max_size=4))
def test_growing_is_a_large_layer_with_the_same_weights(arrivals):
    torch.manual_seed(0)
    head = IncrementalClassifier(3, masking=False)
    rows = weights(head.classifier)
    for classes in arrivals:
        head.adaptation(experience(*classes))
        now = weights(head.classifier)
        for name, old in rows.items():
            assert torch.equal(now[name][: len(old)], old)
        rows = now
    large = nn.Linear(3, max(2, 1 + max(max(classes) for classes in arrivals)))
    assert head.classifier.out_features == large.out_features == len(head.active_units)
    large.load_state_dict(rows)
    x = features(4, 3)
    assert torch.equal(head(x), large(x))
    assert head.active_units.nonzero().flatten().tolist() == sorted(set().union(*arrivals))


def test_new_rows_are_drawn_as_linear_layers_draw_them():
    head = IncrementalClassifier(4, 1)
    before = weights(head.classifier)
    torch.manual_seed(5)
    head.adaptation(experience(2))
    torch.manual_seed(5)
    fresh = nn.Linear(4, 2)
    for name, parameter in head.classifier.named_parameters():
        assert torch.equal(parameter, torch.cat([before[name], getattr(fresh, name)]))


def test_growth_does_not_depend_on_losses_that_are_still_around():
    head = IncrementalClassifier(3)
    head.adaptation(experience(0, 1))
    kept = head(features(2, 3)).sum()
    kept.backward(retain_graph=True)
    head.adaptation(experience(2))
    head(features(2, 3))[:, 2].sum().backward()
    assert [tuple(parameter.grad.shape) for parameter in head.parameters()] == [(3, 3), (3,)]
    kept.backward()


def test_a_frozen_layer_stays_frozen_when_it_grows():
    head = IncrementalClassifier(3)
    head.classifier.bias.requires_grad_(False)
    head.adaptation(experience(4))
    assert [parameter.requires_grad for parameter in head.parameters()] == [True, False]


def test_a_layer_without_bias_grows_too():
    layer = nn.Linear(3, 2, bias=False)
    grow(layer, 5)
    assert layer(features(2, 3)).shape == (2, 5)


@pytest.mark.parametrize("kind", HEADS)
def test_a_state_dict_brings_classes_and_rows_to_a_fresh_head(kind):
    head, twin = HEADS[kind](), nn.Sequential(HEADS[kind]())
    head.adaptation(experience(0, 2, 6))
    random = torch.get_rng_state()
    twin.load_state_dict(nn.Sequential(head).state_dict())
    assert torch.equal(torch.get_rng_state(), random)
    x = features(4, 3)
    assert torch.equal(twin(x), head(x))
    assert torch.equal(twin[0].active_units, head.active_units)
    twin[0].adaptation(experience(1))
    assert twin[0].active_units.nonzero().flatten().tolist() == [0, 1, 2, 6]


def test_a_state_dict_with_fewer_rows_is_refused_by_torch():
    head, small = IncrementalClassifier(3, 5), IncrementalClassifier(3, 2)
    with pytest.raises(RuntimeError, match="size mismatch"):
        head.load_state_dict(small.state_dict())


def test_copies_and_pickles_go_on_by_themselves(head):
    head.adaptation(experience(0, 3))
    x = features(4, 3)
    for twin in (deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert torch.equal(twin(x), head(x))
        twin.adaptation(experience(6))
        assert twin.active_units.sum() == 3
        assert head.active_units.sum() == 2
