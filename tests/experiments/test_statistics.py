"""Means, deviations and paired differences, against scipy and against what a confidence interval promises."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rwalk.experiments.summary import mean_and_deviation, paired_difference

accuracies = st.floats(0.0, 1.0, allow_subnormal=False)


@given(st.lists(accuracies, min_size=2, max_size=12))
def test_mean_and_deviation_are_the_samples(values):
    mean, deviation = mean_and_deviation(values)
    assert mean == pytest.approx(sum(values) / len(values))
    squares = sum((value - mean) ** 2 for value in values)
    assert deviation == pytest.approx(math.sqrt(squares / (len(values) - 1)), abs=1e-9)


def test_a_single_value_has_no_deviation():
    assert mean_and_deviation([0.3]) == (0.3, 0.0)


@given(st.lists(st.tuples(accuracies, accuracies), min_size=2, max_size=10))
def test_the_interval_is_that_of_students_paired_test(pairs):
    first, second = zip(*pairs, strict=True)
    found = paired_difference(first, second)
    differences = [a - b for a, b in pairs]
    assert found.mean == pytest.approx(sum(differences) / len(pairs), abs=1e-12)
    assert (found.wins, found.pairs) == (sum(a - b > 0 for a, b in pairs), len(pairs))
    if len({round(difference, 9) for difference in differences}) == 1:  # no spread: scipy has no test for it
        assert found.low == pytest.approx(found.mean, abs=1e-8)
        assert found.high == pytest.approx(found.mean, abs=1e-8)
        return
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.lists(st.tuples(accuracies, accuracies), min_size=1, max_size=6))
def test_the_other_way_round_everything_changes_its_sign(pairs):
    first, second = zip(*pairs, strict=True)
    one, other = paired_difference(first, second), paired_difference(second, first)
    assert one.mean == pytest.approx(-other.mean)
    if len(pairs) > 1:
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.wins + other.wins + sum(a == b for a, b in pairs) == len(pairs)


@pytest.mark.parametrize("pairs", [3, 5, 10])
def test_the_interval_holds_the_true_difference_in_95_of_100_experiments(pairs):
    generator = torch.Generator().manual_seed(pairs)
    trials = 2000
    common = torch.randn(trials, pairs, generator=generator)  # what the seeds share, and pairing takes out
    ours = common + 0.3 + 0.1 * torch.randn(trials, pairs, generator=generator)
    found = [paired_difference(a, b) for a, b in zip(ours.tolist(), common.tolist(), strict=True)]
    inside = sum(difference.low <= 0.3 <= difference.high for difference in found) / trials
    assert abs(inside - 0.95) < 4 * math.sqrt(0.95 * 0.05 / trials)
    unpaired = 2 * stats.t.ppf(0.975, 2 * pairs - 2) * math.sqrt(2 / pairs)
    assert sum(difference.high - difference.low for difference in found) / trials < unpaired / 3


def test_one_pair_has_no_interval():
    found = paired_difference([0.5], [0.25])
    assert (found.mean, found.low, found.high, found.wins, found.pairs) == (0.25, None, None, 1, 1)


@pytest.mark.parametrize(("first", "second"), [([1.0], []), ([], []), ([1.0, 2.0], [1.0])])
def test_what_makes_no_pairs_is_refused(first, second):
    with pytest.raises(ValueError, match=f"{len(first)} and {len(second)} values: expected pairs"):
        paired_difference(first, second)
