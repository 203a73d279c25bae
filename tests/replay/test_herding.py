"""Mean of features: greedy herding, without repeats."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from replay.twins import herded, herding_gap
from rwalk.replay import mean_of_features

sizes = st.tuples(st.integers(1, 14), st.integers(1, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_positions_are_the_twins(dtype):
    torch.manual_seed(0)
    for _ in range(10):
        features = torch.randn(25, 6, dtype=dtype)
        assert mean_of_features(features, 12).tolist() == herded(features.tolist(), 12)


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_positions_are_the_twins_far_from_the_origin(offset):
    torch.manual_seed(1)
    features = torch.randn(25, 6, dtype=torch.float64) + offset
    assert mean_of_features(features, 12).tolist() == herded(features.tolist(), 12)


@given(sizes, st.integers(0, 16), st.integers(0, 1000), st.booleans())
def test_each_step_is_the_best_of_those_left(size, budget, seed, repeated):
    torch.manual_seed(seed)
    values = torch.randint(-3, 4, size).double() if repeated else torch.randn(size)  # whole numbers: many ties
    chosen, features = mean_of_features(values, budget).tolist(), values.tolist()
    assert len(chosen) == len(set(chosen)) == min(budget, len(features))
    for step, position in enumerate(chosen):
        left = [i for i in range(len(features)) if i not in chosen[:step]]
        best = min(herding_gap(features, [*chosen[:step], i]) for i in left)
        assert herding_gap(features, [*chosen[:step], position]) <= best + 1e-7


@given(sizes, st.integers(0, 1000))
def test_a_smaller_budget_gets_the_first_of_a_larger_one(size, seed):
    torch.manual_seed(seed)
    features = torch.randn(size)
    whole = mean_of_features(features, size[0]).tolist()
    assert sorted(whole) == list(range(size[0]))
    assert all(mean_of_features(features, m).tolist() == whole[:m] for m in range(size[0]))


def test_samples_that_are_all_alike_are_each_taken_once():
    assert mean_of_features(torch.full((5, 3), 0.1), 4).tolist() == [0, 1, 2, 3]


def test_no_chance_is_involved_and_nothing_is_changed():
    features = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    state, copy = torch.get_rng_state(), features.clone()
    assert mean_of_features(features, 5).tolist() == mean_of_features(features, 5).tolist()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(features, copy)


def test_no_candidates_give_no_exemplars():
    assert mean_of_features(torch.empty(0, 4), 3).tolist() == []


def test_features_are_a_finite_matrix():
    with pytest.raises(ValueError, match=r"features of shape \(2, 3, 4\): expected \(N, D\)"):
        mean_of_features(torch.zeros(2, 3, 4), 1)
    with pytest.raises(ValueError, match="the feature of candidate 1 is not finite"):
        mean_of_features(torch.tensor([[0.0, 1.0], [float("nan"), 1.0]]), 1)
