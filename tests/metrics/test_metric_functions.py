"""The metrics against numbers worked out by hand and against loops over the definitions."""

import math
from statistics import mean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rwalk.metrics import (
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
    intransigence,
    learning_accuracy,
)

fractions = st.floats(0.0, 1.0)
nan = math.nan

THREE = torch.tensor([[0.9, 0.2, 0.1], [0.6, 0.8, 0.3], [0.5, 0.9, 0.7]], dtype=torch.float64)
JOINT = torch.tensor([0.95, 0.9, 0.85], dtype=torch.float64)
UNTRAINED = torch.tensor([0.1, 0.15, 0.1], dtype=torch.float64)


@st.composite
def matrices(draw):
    """A square of accuracies, a reference and the untrained model's row, as lists."""
    size = draw(st.integers(1, 6))
    row = st.lists(fractions, min_size=size, max_size=size)
    return [draw(row) for _ in range(size)], draw(row), draw(row)


def test_numbers_worked_out_by_hand():
    assert average_accuracy(THREE) == pytest.approx((0.5 + 0.9 + 0.7) / 3)
    assert forgetting(THREE) == pytest.approx(((0.9 - 0.5) + (0.8 - 0.9)) / 2)
    assert intransigence(THREE, JOINT) == pytest.approx(0.85 - 0.7)
    assert backward_transfer(THREE) == pytest.approx(((0.5 - 0.9) + (0.9 - 0.8)) / 2)
    assert forward_transfer(THREE, UNTRAINED) == pytest.approx(((0.2 - 0.15) + (0.3 - 0.1)) / 2)
    assert learning_accuracy(THREE) == pytest.approx((0.9 + 0.8 + 0.7) / 3)


def test_forgetting_is_measured_from_the_best_of_any_earlier_row():
    best_before_it_was_learned = torch.tensor([[0.5, 0.9], [0.7, 0.8]])
    assert forgetting(best_before_it_was_learned) == pytest.approx(0.5 - 0.7)
    best_in_the_middle = torch.tensor([[0.5, 0.0, 0.0], [0.9, 0.6, 0.0], [0.4, 0.6, 1.0]])
    assert forgetting(best_in_the_middle) == pytest.approx((0.5 + 0.0) / 2)


@given(matrices())
def test_every_metric_is_its_definition(found):
    rows, reference, untrained = found
    a, b, joint = (torch.tensor(values, dtype=torch.float64) for values in (rows, untrained, reference))
    last = len(rows) - 1

    def close(value, terms):
        assert value == (pytest.approx(mean(terms), abs=1e-9) if terms else None)

    close(average_accuracy(a), rows[last])
    close(forgetting(a), [max(rows[row][j] for row in range(last)) - rows[last][j] for j in range(last)])
    close(backward_transfer(a), [rows[last][j] - rows[j][j] for j in range(last)])
    close(forward_transfer(a, b), [rows[j - 1][j] - untrained[j] for j in range(1, last + 1)])
    close(learning_accuracy(a), [rows[j][j] for j in range(last + 1)])
    close(intransigence(a, joint), [reference[last] - rows[last][last]])


def test_what_needs_a_second_task_is_undefined_after_one():
    one = THREE[:1, :1]
    assert forgetting(one) is backward_transfer(one) is forward_transfer(one, UNTRAINED[:1]) is None
    assert (average_accuracy(one), learning_accuracy(one)) == (0.9, 0.9)


def test_what_needs_a_reference_is_undefined_without_one():
    assert intransigence(THREE, None) is forward_transfer(THREE, None) is None


def test_a_missing_measurement_leaves_only_what_depends_on_it_undefined():
    upper_missing = THREE.clone()
    upper_missing[0, 1:] = upper_missing[1, 2] = nan
    assert forward_transfer(upper_missing, UNTRAINED) is None
    assert forgetting(upper_missing) == forgetting(THREE)
    assert average_accuracy(upper_missing) == average_accuracy(THREE)
    diagonal_missing = THREE.clone()
    diagonal_missing[1, 1] = nan
    assert backward_transfer(diagonal_missing) is learning_accuracy(diagonal_missing) is None
    last_missing = THREE.clone()
    last_missing[2, 2] = nan
    assert average_accuracy(last_missing) is intransigence(last_missing, JOINT) is None
    assert forgetting(last_missing) == forgetting(THREE)
    last_missing[2, 0] = nan
    assert forgetting(last_missing) is None


def test_forgetting_of_a_task_that_was_never_measured_before_is_undefined():
    column_missing = THREE.clone()
    column_missing[:2, 0] = nan
    assert forgetting(column_missing) is None
    only_the_end = torch.full((3, 3), nan, dtype=torch.float64)
    only_the_end[2] = 0.5
    assert forgetting(only_the_end) is None
