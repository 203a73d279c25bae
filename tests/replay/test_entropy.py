"""Entropy: highest first, or drawn in proportion."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from replay.twins import chi_square, draw_probabilities, entropy_of, highest_entropy
from rwalk.replay import entropy

MASKED = -math.inf
values = st.floats(-20, 20, width=32)
rows = st.integers(1, 5).flatmap(
    lambda classes: st.lists(st.lists(values, min_size=classes, max_size=classes), min_size=1, max_size=12)
)


@given(rows, st.integers(0, 15))
def test_the_most_unsure_come_first_as_in_the_twin(logits, budget):
    chosen = entropy(torch.tensor(logits), budget).tolist()
    assert len(chosen) == len(set(chosen)) == min(budget, len(logits))
    twin = [entropy_of(logits[i]) for i in highest_entropy(logits, budget)]
    assert [entropy_of(logits[i]) for i in chosen] == pytest.approx(twin, rel=1e-9, abs=1e-14)


def test_positions_are_the_twins():
    torch.manual_seed(0)
    for _ in range(20):
        logits = 3 * torch.randn(30, 7)
        assert entropy(logits, 10).tolist() == highest_entropy(logits.tolist(), 10)


def test_equally_unsure_samples_come_as_they_are():
    sure, unsure = [9.0, 0.0], [0.0, 0.0]
    assert entropy(torch.tensor([sure, unsure] * 100), 150).tolist() == [*range(1, 200, 2), *range(0, 100, 2)]


def test_masked_classes_count_for_nothing():
    logits = torch.tensor([[0.0, 0.0, MASKED], [0.0, 1.0, MASKED], [0.0, MASKED, MASKED]])
    assert entropy(logits, 3).tolist() == entropy(logits[:, :2], 3).tolist() == [0, 1, 2]


def test_drawn_in_proportion_to_the_entropy():
    torch.manual_seed(0)
    logits = [[0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    draws = 6000
    counts = Counter(tuple(entropy(torch.tensor(logits), 2, drawn=True).tolist()) for _ in range(draws))
    probabilities = draw_probabilities([entropy_of(row) for row in logits], 2)
    assert chi_square(counts, probabilities, draws) < 31.3  # 11 degrees of freedom: 1 in 1000
    assert chi_square(counts, draw_probabilities([1.0] * 4, 2), draws) > 31.3


def test_where_the_model_is_sure_of_all_every_sample_is_equally_likely():
    torch.manual_seed(0)
    sure = torch.tensor([[1000.0, 0.0]] * 5)
    counts = Counter(int(entropy(sure, 1, drawn=True)) for _ in range(3000))
    assert chi_square(counts, dict.fromkeys(range(5), 0.2), 3000) < 18.5  # 4 degrees


def test_no_candidates_give_no_exemplars():
    assert entropy(torch.empty(0, 3), 2).tolist() == entropy(torch.empty(0, 3), 2, drawn=True).tolist() == []


def test_without_drawing_no_chance_is_involved():
    before = torch.get_rng_state()
    entropy(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), 2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("row", [[math.nan, 0.0], [math.inf, 0.0], [MASKED, MASKED]])
def test_a_row_without_an_entropy_is_refused(row):
    with pytest.raises(ValueError, match="the entropy of candidate 1 is not finite"):
        entropy(torch.tensor([[0.0, 0.0], row]), 1)


def test_logits_are_a_matrix():
    with pytest.raises(ValueError, match=r"logits of shape \(2, 3, 4\): expected \(N, C\)"):
        entropy(torch.zeros(2, 3, 4), 1)
