"""Means whose sums stay on the device."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rwalk.metrics.running import RunningMean

values = st.lists(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=5), max_size=6)


@given(values)
def test_means_and_sums_of_batches_give_the_mean_of_all(batches):
    by_means, by_sums = RunningMean(), RunningMean()
    for batch in batches:
        by_means.add_mean(torch.tensor(batch).double().mean(), len(batch))
        by_sums.add_sum(torch.tensor(batch).double().sum(), len(batch))
    flat = [value for batch in batches for value in batch]
    expected = pytest.approx(sum(flat) / max(len(flat), 1), abs=1e-12)
    assert float(by_means) == expected
    assert float(by_sums) == expected
    assert by_means.count == by_sums.count == len(flat)


def test_merging_counts_what_the_other_counted_and_leaves_it_alone():
    one, other = RunningMean(), RunningMean()
    one.add_mean(torch.tensor(1.0), 2)
    other.add_mean(torch.tensor(4.0), 1)
    one.merge(other)
    one.merge(RunningMean())
    one.add_mean(torch.tensor(6.0), 1)
    assert (float(one), one.count) == (3.0, 4)
    assert (float(other), other.count) == (4.0, 1)


def test_nothing_counted_is_0():
    assert float(RunningMean()) == 0.0


def test_many_small_numbers_in_bfloat16_are_not_lost():
    mean = RunningMean()
    for _ in range(1000):
        mean.add_mean(torch.tensor(1.0, dtype=torch.bfloat16), 4)
    assert float(mean) == 1.0


def test_whole_numbers_are_counted_exactly():
    mean = RunningMean()
    mean.add_sum(torch.tensor(2**24), 2**24)
    mean.add_sum(torch.tensor(1), 1)
    assert float(mean) == 1.0


def test_float64_stays_float64():
    mean = RunningMean()
    mean.add_mean(torch.tensor(0.1, dtype=torch.float64))
    assert float(mean) == 0.1


def test_a_loss_keeps_no_graph_and_is_not_changed():
    weight = torch.ones((), requires_grad=True)
    loss, mean = 2 * weight, RunningMean()
    for _ in range(3):
        mean.add_mean(loss)
    assert float(mean) == 2.0
    assert float(loss.detach()) == 2.0
    assert mean._sum.grad_fn is None
