"""The accuracy matrix, row by row."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rwalk.metrics import AccuracyMatrix, forgetting, forward_transfer

NAMES = {
    "average_accuracy",
    "forgetting",
    "intransigence",
    "backward_transfer",
    "forward_transfer",
    "learning_accuracy",
}


def filled(rows, untrained=None):
    matrix = AccuracyMatrix(len(rows[0]))
    if untrained is not None:
        matrix.record(-1, untrained)
    for task, row in enumerate(rows):
        matrix.record(task, row)
    return matrix


def test_rows_are_kept_as_recorded_and_none_where_nothing_was_measured():
    matrix = AccuracyMatrix(3)
    assert matrix.tolist() == [[None] * 3] * 3
    matrix.record(0, [0.5])
    matrix.record(1, [0.25, 1.0, 0.0])
    assert matrix.tolist() == [[0.5, None, None], [0.25, 1.0, 0.0], [None, None, None]]
    assert matrix.learned == 2


def test_the_summary_is_about_the_tasks_learned_so_far():
    matrix = filled([[0.9, 0.2, 0.1], [0.6, 0.8, 0.3]], untrained=[0.1, 0.15, 0.1])
    summary = matrix.summary()
    assert set(summary) == NAMES
    assert summary["average_accuracy"] == pytest.approx((0.6 + 0.8) / 2)
    assert summary["forgetting"] == pytest.approx(0.3)
    assert summary["backward_transfer"] == pytest.approx(-0.3)
    assert summary["forward_transfer"] == pytest.approx(0.2 - 0.15)
    assert summary["learning_accuracy"] == pytest.approx(0.85)
    assert summary["intransigence"] is None
    assert matrix.summary([0.95, 0.9])["intransigence"] == pytest.approx(0.1)
    assert matrix.summary([0.95, 0.9, 0.3])["intransigence"] == pytest.approx(0.1)


def test_before_the_first_task_nothing_is_defined():
    matrix = AccuracyMatrix(2)
    assert matrix.summary() == matrix.summary([1.0, 1.0]) == dict.fromkeys(NAMES)
    matrix.record(-1, [0.1, 0.1])
    assert matrix.summary() == dict.fromkeys(NAMES)
    assert matrix.learned == 0


@given(size=st.integers(1, 5), data=st.data())
def test_the_summary_agrees_with_the_functions_at_every_stage(size, data):
    row = st.lists(st.floats(0, 1), min_size=size, max_size=size)
    untrained, matrix = data.draw(row), AccuracyMatrix(size)
    matrix.record(-1, untrained)
    rows = []
    for task in range(size):
        rows.append(data.draw(row))
        matrix.record(task, rows[-1])
        square = torch.tensor(rows, dtype=torch.float64)[:, : task + 1]
        summary = matrix.summary()
        assert summary["forgetting"] == forgetting(square)
        assert summary["forward_transfer"] == forward_transfer(
            square, torch.tensor(untrained[: task + 1], dtype=torch.float64)
        )


@pytest.mark.parametrize("measured", [1, 2])
def test_an_untrained_row_that_stops_early_leaves_forward_transfer_undefined(measured):
    matrix = filled([[0.9, 0.2, 0.1], [0.6, 0.8, 0.3], [0.5, 0.9, 0.7]], untrained=[0.1, 0.2][:measured])
    assert matrix.summary()["forward_transfer"] is None
    assert matrix.summary()["forgetting"] is not None


def test_a_metric_that_was_not_measured_is_none_and_never_infinite():
    matrix = AccuracyMatrix(3)
    matrix.record(2, [0.5, 0.5, 0.5])
    assert matrix.summary() == {**dict.fromkeys(NAMES), "average_accuracy": 0.5}


def test_a_task_recorded_again_replaces_its_row():
    matrix = filled([[0.9, 0.2], [0.6, 0.8]])
    matrix.record(0, [1.0, 0.0])
    assert matrix.tolist() == [[1.0, 0.0], [0.6, 0.8]]
    assert matrix.learned == 2


@pytest.mark.parametrize(
    ("task", "accuracies", "message"),
    [
        (2, [0.5], "task=2: this matrix has tasks 0 to 1"),
        (-2, [0.5], "task=-2: this matrix has tasks 0 to 1"),
        (0, [0.1, 0.2, 0.3], "3 accuracies for 2 tasks"),
        (0, [0.5, 1.5], "expected fractions"),
        (-1, [-0.1], "expected fractions"),
    ],
)
def test_what_is_out_of_range_is_refused_and_nothing_recorded(task, accuracies, message):
    matrix = AccuracyMatrix(2)
    with pytest.raises(ValueError, match=message):
        matrix.record(task, accuracies)
    assert matrix.tolist() == [[None, None], [None, None]]
    assert matrix.untrained is None


def test_not_a_number_counts_as_not_measured():
    matrix = filled([[0.5, math.nan]])
    assert matrix.tolist()[0] == [0.5, None]


def test_a_reference_covers_every_task_learned():
    matrix = filled([[0.9, 0.2], [0.6, 0.8]])
    with pytest.raises(ValueError, match="the reference has 1 accuracies for 2 tasks learned"):
        matrix.summary([0.9])


@pytest.mark.parametrize("count", [0, -1])
def test_a_matrix_has_at_least_one_task(count):
    with pytest.raises(ValueError, match=f"n_tasks={count}"):
        AccuracyMatrix(count)
