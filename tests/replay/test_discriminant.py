"""The linear discriminant against Gaussian classes written out."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from replay.twins import discriminant
from rwalk.replay import ClassMeans, LinearDiscriminant


def drawn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(
    labels=st.lists(st.integers(0, 6), min_size=2, max_size=12).filter(lambda labels: len(set(labels)) < len(labels)),
    width=st.integers(2, 20),
    seed=st.integers(0, 2**31),
    size=st.floats(1e-3, 1e3),
    shrinkage=st.floats(1e-2, 1e3),
    power=st.sampled_from([0.25, 0.5, 1.0, 2]),
)
def test_scores_are_those_of_gaussian_classes(labels, width, seed, size, shrinkage, power):
    features, x = size * drawn(len(labels), width, seed=seed), drawn(5, width, seed=seed + 1)
    found = LinearDiscriminant.of(features, torch.tensor(labels), shrinkage, power)
    scores, seen = found.scores(x, 8, missing=-5.0), sorted(set(labels))
    expected = discriminant(features.tolist(), labels, x.tolist(), shrinkage, power)
    np.testing.assert_allclose(scores[:, seen], expected, rtol=1e-7, atol=1e-9)
    assert found.classes.tolist() == seen
    missing = [label for label in range(8) if label not in seen]
    assert bool((scores[:, missing] == -5.0).all())


def test_what_varies_within_classes_counts_less_than_it_does_for_the_nearest_mean():
    torch.manual_seed(0)
    labels = torch.arange(2).repeat(200)
    features = torch.randn(400, 3) * torch.tensor([4.0, 0.2, 0.2]) + torch.tensor([0.0, 0.0, 9.0])
    features[:, 1] += 0.5 * labels
    features[:, 0] += labels  # tells them apart as well, but badly
    known, asked = features[:100], features[100:]
    right = []
    for kind in (ClassMeans.of, partial(LinearDiscriminant.of, power=1.0)):
        scores = kind(known, labels[:100]).scores(asked, 2, missing=-9.0)
        right.append((scores.argmax(1) == labels[100:]).float().mean().item())
    exact = LinearDiscriminant.of(known, labels[:100], shrinkage=1e-3, power=1.0).scores(asked, 2, missing=-9.0)
    assert right[0] < right[1] < (exact.argmax(1) == labels[100:]).float().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("copies", [1, 3])
def test_where_nothing_varies_within_classes_the_nearest_mean_decides(dtype, copies):
    features, labels = drawn(4, 6).to(dtype).repeat(copies, 1), torch.tensor([0, 1, 2, 5]).repeat(copies)
    found, means = LinearDiscriminant.of(features, labels, power=1), ClassMeans.of(features, labels)
    torch.testing.assert_close(found.weights, means.means)
    x = drawn(50, 6, seed=1).to(dtype)
    expected = means.scores(x, 6, missing=-9.0).argmax(1)
    assert torch.equal(found.scores(x, 6, missing=-9.0).argmax(1), expected)


def test_the_more_it_is_shrunk_the_nearer_it_is_to_the_means():
    features, labels = drawn(12, 5), torch.arange(3).repeat(4)
    unit = torch.nn.functional.normalize(features)
    means = torch.stack([unit[labels == label].mean(0) for label in range(3)])
    far = [(LinearDiscriminant.of(features, labels, by, power=1.0).weights - means).norm() for by in (1.0, 100.0, 1e8)]
    assert far[0] > 10 * far[1] > 1000 * far[2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("width", [3, 30])  # either form of the system
def test_weights_are_float32_or_wider(dtype, width):
    features, labels, x = drawn(20, width).to(dtype), torch.arange(20) % 4, drawn(6, width, seed=1).to(dtype)
    found = LinearDiscriminant.of(features, labels)
    scores = found.scores(x, 4, missing=0.0)
    assert found.weights.dtype == scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = discriminant(features.double().tolist(), labels.tolist(), x.double().tolist(), 10.0)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("shrinkage", [1e-4, 1e-8])
@pytest.mark.parametrize("width", [3, 30])
def test_a_covariance_that_is_hardly_shrunk_is_inverted_in_float32_too(width, shrinkage):
    features, labels = drawn(20, width).float(), torch.arange(20) % 4
    found = LinearDiscriminant.of(features, labels, shrinkage, power=1.0).weights
    exact = LinearDiscriminant.of(features.double(), labels, shrinkage, power=1.0).weights
    torch.testing.assert_close(found.double(), exact, rtol=1e-3, atol=1e-4 * exact.abs().max().item())


def test_a_shrinkage_that_leaves_it_singular_is_refused():
    with pytest.raises(ValueError, match="shrinkage=1e-30: too little to invert the covariance; 10 is usual"):
        LinearDiscriminant.of(drawn(20, 30), torch.arange(20) % 4, 1e-30)


@pytest.mark.parametrize("shrinkage", [0, -1.0, float("nan"), float("inf"), "much"])
def test_a_shrinkage_or_power_that_is_not_positive_is_refused(shrinkage):
    with pytest.raises(ValueError, match=rf"shrinkage={shrinkage!r}: expected a positive number; 10 is usual"):
        LinearDiscriminant.of(drawn(4, 3), torch.tensor([0, 0, 1, 1]), shrinkage)
    with pytest.raises(ValueError, match=rf"power={shrinkage!r}: expected a positive number; 0.5 is usual"):
        LinearDiscriminant.of(drawn(4, 3), torch.tensor([0, 0, 1, 1]), power=shrinkage)
