"""What of a batch is counted, and other metrics than accuracy."""

import math
import sys

import pytest
import torch
from torch.nn import functional as F

from rwalk.errors import MissingExtraError, RWalkError
from rwalk.metrics import AccuracyMatrix, MetricMatrix, metric_key
from rwalk.metrics.answers import Answers, class_scores
from rwalk.metrics.matrix import completed
from rwalk.metrics.others import chosen_metrics
from rwalk.metrics.running import RunningMean
from rwalk.metrics.tally import Tally

WHOLE = torch.int64


def scores(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("shape", "targets", "last", "found"),
    [
        ((4, 3), (4,), False, (4, 3)),
        ((4, 3, 5), (4, 5), False, (4, 3, 5)),
        ((4, 5, 3), (4, 5), False, (4, 3, 5)),
        ((4, 3, 3), (4, 3), False, "first"),
        ((4, 3, 3), (4, 3), True, "last"),
        ((4, 3, 2, 2), (4, 2, 2), False, (4, 3, 2, 2)),
        ((4, 1), (4,), False, None),
        ((4, 1), (4, 1), False, None),
        ((4,), (4,), False, None),
        ((4, 3), (4, 3), False, None),
        ((4, 3), (4, 2), False, None),
    ],
)
def test_where_classes_are(shape, targets, last, found):
    given = scores(*shape)
    result = class_scores(given, torch.zeros(targets, dtype=WHOLE), classes_last=last)
    if found is None:
        assert result is None
    elif isinstance(found, str):
        assert torch.equal(result, given if found == "first" else given.movedim(-1, 1))
    else:
        assert tuple(result.shape) == found


@pytest.mark.parametrize("targets", [torch.zeros(4), torch.zeros(4, dtype=torch.bool), None, [0, 1, 2, 0]])
def test_targets_that_are_no_class_numbers_have_no_accuracy(targets):
    assert class_scores(scores(4, 3), targets) is None


def test_batches_of_several_sizes_add_up_to_the_whole():
    outputs, targets = scores(30, 4, 7), torch.randint(-1, 4, (30, 7), generator=torch.Generator().manual_seed(1))
    targets[3:8] = -1  # samples without any target
    tally, begin = Tally(), 0
    for size in (3, 5, 22):
        part = slice(begin, begin + size)
        loss = F.cross_entropy(outputs[part], targets[part], ignore_index=-1)
        tally.add(Answers.of(outputs[part], targets[part], loss, size, ignore_index=-1))
        begin += size
    found = {name: float(value) for name, value in tally.values().items()}
    mask = targets >= 0
    right = (outputs.argmax(1) == targets)[mask].float().mean()
    whole = F.cross_entropy(outputs, targets, ignore_index=-1)
    assert found == {"Top1_Acc": pytest.approx(float(right)), "Loss": pytest.approx(float(whole), rel=1e-6)}


@pytest.mark.parametrize(
    ("wrong", "right"), [(math.nan, 0), (math.inf, 0), (-math.inf, 4)], ids=["nan", "inf", "minus inf"]
)
@pytest.mark.parametrize("keep", [False, True])
def test_an_answer_that_is_not_finite_is_not_right_and_a_class_that_is_ruled_out_is_none(wrong, right, keep):
    outputs = torch.zeros(4, 3)
    outputs[:, 1] = 1.0
    outputs[:, 0] = wrong
    targets = torch.full((4,), 1 if wrong == -math.inf else 0)
    assert int(Answers.of(outputs, targets, torch.zeros(()), 4, keep=keep).right) == right
    assert int(Answers.of(torch.full((4, 3), wrong), torch.zeros(4).long(), torch.zeros(()), 4, keep=keep).right) == 0


@pytest.mark.parametrize("count", [5, torch.tensor(5)])
def test_what_was_counted_goes_on_from_a_state(count):
    mean, other = RunningMean(), RunningMean()
    mean.add_mean(torch.tensor(2.0), count)
    other.load_state_dict(mean.state_dict())
    for one in (mean, other):
        one.add_sum(torch.tensor(8.0), 5)
    assert float(mean) == float(other) == 1.8
    assert mean.value(lambda values: 2 * values + torch.tensor([20.0, 0.0])) == pytest.approx((36 + 20) / 20)
    fresh = RunningMean()
    fresh.load_state_dict(RunningMean().state_dict())
    assert (float(fresh), fresh.started, fresh.value(torch.neg)) == (0.0, False, 0.0)


def test_a_mean_of_none_adds_nothing():
    mean = RunningMean()
    mean.add_mean(torch.tensor(float("nan")), torch.tensor(0))
    mean.add_mean(torch.tensor(3.0), torch.tensor(2))
    assert float(mean) == 3.0


@pytest.mark.parametrize(("higher", "sign"), [(True, 1.0), (False, -1.0)])
def test_forgetting_of_a_metric_is_how_far_it_got_worse(higher, sign):
    rows = [[3.0, 9.0, 9.0], [5.0, 1.0, 9.0], [4.0, 2.0, 2.0]]
    matrix = MetricMatrix(3, higher_is_better=higher)
    matrix.record(-1, [9.0, 8.0, 7.0])
    for task, row in enumerate(rows):
        matrix.record(task, [sign * value if higher else value for value in row])
    summary = matrix.summary()
    values = [[sign * v if higher else v for v in row] for row in rows]
    best = max if higher else min
    worse = [(best(values[0][j], values[1][j]) - values[2][j]) * sign for j in range(2)] if higher else None
    expected = sum(worse) / 2 if higher else ((4.0 - 3.0) + (2.0 - 1.0)) / 2
    assert summary["forgetting"] == pytest.approx(expected)
    assert summary["average"] == pytest.approx(sum(values[2]) / 3)
    assert summary["learning"] == pytest.approx((values[0][0] + values[1][1] + values[2][2]) / 3)


def test_a_metric_of_which_nobody_says_what_is_better_has_averages_only():
    matrix = MetricMatrix(2, higher_is_better=None)
    matrix.record(0, [3.0, 4.0])
    matrix.record(1, [5.0, 6.0])
    summary = matrix.summary()
    assert (summary["average"], summary["learning"]) == (5.5, 4.5)
    assert summary["forgetting"] is summary["backward_transfer"] is None


def test_rows_come_in_the_order_of_learning_and_a_task_learned_again_is_the_last():
    matrix = AccuracyMatrix(3)
    for task, row in ((2, [0.1, 0.2, 0.9]), (0, [0.8, 0.3, 0.5])):
        matrix.learn(task)
        matrix.record(task, row)
    summary = matrix.summary()
    assert matrix.order == [2, 0]
    assert summary["average_accuracy"] == pytest.approx((0.8 + 0.5) / 2)
    assert summary["forgetting"] == pytest.approx(0.4)
    matrix.learn(2)
    assert matrix.tolist()[2] == [None] * 3
    matrix.fill(2, {0: 0.2})
    matrix.fill(2, {2: 1.0})
    assert matrix.tolist()[2] == [0.2, None, 1.0]
    assert matrix.summary()["forgetting"] == pytest.approx(0.6)
    again = AccuracyMatrix(3)
    again.load_state_dict(matrix.state_dict())
    assert (again.tolist(), again.order) == (matrix.tolist(), matrix.order)
    with pytest.raises(ValueError, match="a matrix of 3 tasks for one of 2"):
        AccuracyMatrix(2).load_state_dict(matrix.state_dict())


def test_a_matrix_of_rows_is_one_that_was_filled():
    rows, untrained = [[0.9, None, 0.1], [None, None, None], [0.5, 0.6, 0.7]], [0.1, 0.2, None]
    matrix, filled = AccuracyMatrix.from_rows(rows, untrained), AccuracyMatrix(3)
    filled.record(-1, [0.1, 0.2])
    filled.record(0, [0.9, math.nan, 0.1])
    filled.record(2, [0.5, 0.6, 0.7])
    assert matrix.tolist() == filled.tolist() == rows
    assert matrix.order == filled.order == [0, 1, 2]
    assert matrix.summary() == filled.summary()
    assert matrix.untrained[:2].tolist() == untrained[:2]


@pytest.mark.parametrize(
    ("milestones", "learned", "expected"),
    [
        ([1, 2, 3], [2, 0, 1], [(2,), (0,), (1,)]),
        ([2, 4], [0, 1, 2], [(), (0,), ()]),
        ([2, 4], [3, 0, 2, 1], [(), (), (1,), (0,)]),
        ([1, 1, 3], [0, 1, 2], [(0, 1), (), (2,)]),
        ([1], [0, 1, 5], [(0,), (), ()]),
        ([1, 2], [], []),
    ],
)
def test_an_experience_is_completed_by_the_last_of_its_own(milestones, learned, expected):
    assert completed(milestones, learned) == expected


def test_names_are_avalanches():
    assert metric_key("Loss_Epoch", "train", phase="train") == "Loss_Epoch/train_phase/train_stream"
    key = "Top1_Acc_Exp/eval_phase/test_stream/Task011/Exp002"
    assert metric_key("Top1_Acc_Exp", "test", task=11, experience=2) == key


def test_without_torchmetrics_a_name_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'rwalk\[metrics\]'"):
        chosen_metrics(["F1Score"])


def test_with_a_torchmetrics_that_cannot_be_imported_a_name_says_why(monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torchmetrics":
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, "torchmetrics", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(RWalkError, match=r"torchvision::nms does not exist.*install the torchvision of this torch"):
        chosen_metrics(["F1Score"])


def test_what_is_no_metric_is_refused():
    with pytest.raises(TypeError, match="metric 3: expected a name or a metric"):
        chosen_metrics([3])
