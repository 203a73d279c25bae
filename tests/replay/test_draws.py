"""Draws in proportion, and plane distance: the probabilities are those of the formula."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from replay.twins import chi_square, draw_probabilities, plane_weights
from rwalk.replay import plane_distance
from rwalk.replay.selection import in_proportion

DRAWS = 6000


def counted(choose):
    torch.manual_seed(0)
    return Counter(tuple(choose().tolist()) for _ in range(DRAWS))


def test_each_ordered_draw_is_as_likely_as_one_after_the_other_without_replacement():
    weights = [0.5, 1.0, 2.0, 4.0]
    counts = counted(lambda: in_proportion(torch.tensor(weights), 2))
    probabilities = draw_probabilities(weights, 2)
    assert chi_square(counts, probabilities, DRAWS) < 31.3  # 12 draws, 11 degrees of freedom: 1 in 1000
    assert chi_square(counts, draw_probabilities([1.0] * 4, 2), DRAWS) > 31.3


def test_a_smaller_budget_gets_as_likely_what_a_larger_one_has_first():
    weights = [0.5, 1.0, 2.0, 4.0]
    first = Counter()
    for order, count in counted(lambda: in_proportion(torch.tensor(weights), 3)).items():
        first[order[:1]] += count
    assert chi_square(first, draw_probabilities(weights, 1), DRAWS) < 16.3  # 3 degrees


def test_infinite_weights_come_first_and_zero_weights_last_each_in_random_order():
    weights = torch.tensor([0.0, float("inf"), 1.0, float("inf"), 0.0])
    counts = counted(lambda: in_proportion(weights, 5))
    assert set(counts) == {(a, 4 - a, 2, b, 4 - b) for a in (1, 3) for b in (0, 4)}
    assert chi_square(counts, dict.fromkeys(counts, 0.25), DRAWS) < 16.3


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_weights_are_numbers_from_0(wrong):
    with pytest.raises(ValueError, match=r"weights\[1\]: expected numbers of at least 0"):
        in_proportion(torch.tensor([1.0, wrong]), 1)


FEATURES = [[1.0, 2.0], [0.5, -0.25], [3.0, 1.0], [-2.0, -3.0]]
WEIGHT = [1.0, 0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_sample_is_drawn_in_proportion_to_1_over_its_distance_on_either_side(dtype):
    features, weight = torch.tensor(FEATURES, dtype=dtype), torch.tensor(WEIGHT, dtype=dtype)
    counts = counted(lambda: plane_distance(features, weight, 2))
    probabilities = draw_probabilities(plane_weights(FEATURES, WEIGHT), 2)
    assert chi_square(counts, probabilities, DRAWS) < 31.3
    assert max(probabilities.values()) > 3 / 12  # far from uniform, so that the test above means something


def test_a_sample_on_the_plane_is_certain_and_costs_the_others_one_place():
    features = torch.tensor([[1.0, 0.0], [0.0, 7.0], [2.0, 0.0], [4.0, 0.0]])
    counts = counted(lambda: plane_distance(features, torch.tensor([1.0, 0.0]), 2))
    assert {first for first, _ in counts} == {1}
    left = draw_probabilities([1.0, 0.0, 0.5, 0.25], 1)
    second = Counter({(second,): count for (_, second), count in counts.items()})
    probabilities = {key: p for key, p in left.items() if p}
    assert chi_square(second, probabilities, DRAWS) < 13.8  # 2 degrees


@pytest.mark.parametrize("tiny", [2.0**-100, 2.0**-149])
def test_tiny_distances_neither_overflow_nor_get_a_floor(tiny):
    features = torch.tensor([[1.0], [tiny], [0.0], [2 * tiny]])
    counts = counted(lambda: plane_distance(features, torch.tensor([1.0]), 4))
    assert {(order[0], order[3]) for order in counts} == {(2, 0)}
    share = sum(count for order, count in counts.items() if order[1] == 1) / DRAWS
    assert abs(share - 2 / 3) < 0.02  # 3.3 standard deviations


def test_where_all_lie_on_the_plane_all_are_equally_likely():
    counts = counted(lambda: plane_distance(torch.zeros(4, 3), torch.ones(3), 1))
    assert chi_square(counts, {(i,): 0.25 for i in range(4)}, DRAWS) < 16.3


@given(st.integers(0, 12), st.integers(0, 15), st.integers(0, 1000))
def test_positions_are_distinct_and_as_many_as_asked_for(count, budget, seed):
    torch.manual_seed(seed)
    chosen = plane_distance(torch.randn(count, 3), torch.randn(3), budget)
    assert chosen.dtype is torch.int64
    assert len(chosen) == len(set(chosen.tolist())) == min(count, budget)
    assert set(chosen.tolist()) <= set(range(count))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 3\) and a weight of shape \(2,\): expected \(N, D\) and \(D,\)"):
        plane_distance(torch.zeros(4, 3), torch.zeros(2), 1)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_diverged_model_is_refused(wrong):
    features = torch.ones(4, 3)
    features[2, 1] = wrong
    with pytest.raises(ValueError, match="the plane distance of candidate 2 is not finite"):
        plane_distance(features, torch.ones(3), 1)
