"""The uniform sampler: exact counts of what it draws."""

from collections import Counter
from itertools import combinations

import pytest
import torch

from rwalk.replay import uniform


@pytest.mark.parametrize(("candidates", "budget", "found"), [(5, 3, 3), (5, 5, 5), (2, 7, 2), (0, 3, 0), (4, 0, 0)])
def test_distinct_positions_within_the_budget(candidates, budget, found):
    torch.manual_seed(0)
    chosen = uniform(candidates, budget)
    assert chosen.dtype is torch.int64
    assert len(chosen) == len(set(chosen.tolist())) == found
    assert set(chosen.tolist()) <= set(range(candidates))


def test_the_global_seed_decides():
    torch.manual_seed(1)
    first, second = uniform(50, 10).tolist(), uniform(50, 10).tolist()
    torch.manual_seed(1)
    assert uniform(50, 10).tolist() == first != second


def test_every_subset_is_drawn_as_often_as_another():
    torch.manual_seed(0)
    draws = 4000
    counts = Counter(tuple(sorted(uniform(5, 2).tolist())) for _ in range(draws))
    subsets = list(combinations(range(5), 2))
    assert set(counts) == set(subsets)
    expected = draws / len(subsets)
    chi_square = sum((counts[subset] - expected) ** 2 / expected for subset in subsets)
    assert chi_square < 27.9  # 9 degrees of freedom: exceeded by chance once in 1000
