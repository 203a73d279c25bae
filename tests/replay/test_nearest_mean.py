"""Class means against iCaRL's rule written out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from replay.twins import nearest_mean
from rwalk.replay import ClassMeans


@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=12),
    width=st.integers(2, 6),
    seed=st.integers(0, 2**31),
    size=st.floats(1e-3, 1e3),
)
def test_the_highest_score_is_the_nearest_mean(labels, width, seed, size):
    generator = torch.Generator().manual_seed(seed)
    features = size * torch.randn(len(labels), width, dtype=torch.float64, generator=generator)
    x = torch.randn(20, width, dtype=torch.float64, generator=generator)
    means = ClassMeans.of(features, torch.tensor(labels))
    scores = means.scores(x, 8, missing=-5.0)
    expected, distance, seen = nearest_mean(features.tolist(), labels, x.tolist())
    assert scores.argmax(1).tolist() == expected
    np.testing.assert_allclose(scores[:, seen], 1 - np.square(distance) / 2, atol=1e-12)
    assert means.classes.tolist() == seen
    missing = [label for label in range(8) if label not in seen]
    assert bool((scores[:, missing] == -5.0).all())


def test_samples_weigh_alike_however_long_their_features_are():
    means = ClassMeans.of(torch.tensor([[1.0, 0.0], [0.0, 1000.0]]), torch.tensor([3, 3]))
    torch.testing.assert_close(means.means, torch.full((1, 2), 0.5**0.5))


def test_features_that_are_nothing_are_near_to_nothing():
    means = ClassMeans.of(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]))
    scores = means.scores(torch.tensor([[0.0, 0.0], [1.0, 1.0]]), 2, missing=-1.0)
    torch.testing.assert_close(scores, torch.tensor([[0.0, 0.0], [0.0, 0.5**0.5]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_means_are_float32_or_wider(dtype):
    means = ClassMeans.of(torch.ones(2, 3, dtype=dtype), torch.tensor([0, 1]))
    assert means.means.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert means.scores(torch.ones(4, 3, dtype=dtype), 2, missing=0.0).dtype == means.means.dtype
