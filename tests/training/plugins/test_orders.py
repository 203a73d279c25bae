"""The accuracy matrix by hand: any order of experiences, any calls of ``train``, any evaluations in between."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rwalk.streams import Stream, TensorData, class_incremental
from rwalk.training import EarlyStoppingPlugin, Naive
from training.toys import Recorder, blobs, naive, toy

TASKS = 3
DATA = class_incremental("six", blobs(classes=6, per_class=2), blobs(classes=6, per_class=3, seed=1), TASKS)

#: What is done after an experience: nothing, or evaluate on these test experiences.
evaluations = st.sampled_from([(), (0, 1, 2), (1,), (2, 0)])


def strategy_of_six(**options):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 6)
    return Naive(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.5), train_mb_size=4, **options)


def measured(strategy, places):
    metrics = strategy.eval([DATA.test_stream[place] for place in places])
    return {place: metrics[f"Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp{place:03d}"] for place in places}


def mean(values):
    return None if not values or any(map(math.isnan, values)) else sum(values) / len(values)


def by_hand(rows, order):
    """Summary of rows {task: {column: accuracy}} in the order of learning, in plain Python."""
    last, before = order[-1], order[:-1]

    def at(row, column):
        return rows.get(row, {}).get(column, math.nan)

    best = {j: max((at(k, j) for k in before if not math.isnan(at(k, j))), default=math.nan) for j in before}
    return {
        "average_accuracy": mean([at(last, j) for j in order]),
        "forgetting": mean([best[j] - at(last, j) for j in before]),
        "backward_transfer": mean([at(last, j) - at(j, j) for j in before]),
        "learning_accuracy": mean([at(j, j) for j in order]),
    }


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, TASKS - 1), evaluations), min_size=1, max_size=7), st.booleans())
def test_any_order_any_calls_any_evaluations(steps, in_one_call):
    """A task learned once more comes last, with a row anew; further calls for the same one go on with it."""
    strategy, rows, order = strategy_of_six(), {}, []
    if in_one_call:  # experiences that nothing is measured between may come in one call
        together, pending = [], []
        for task, places in steps:
            pending.append(task)
            if places:
                together.append((pending, places))
                pending = []
        together += [(pending, ())] if pending else []
    else:
        together = [([task], places) for task, places in steps]
    for tasks, places in together:
        strategy.train([DATA.train_stream[task] for task in tasks])
        for task in tasks:
            order = [other for other in order if other != task] + [task]
            rows[task] = {}
        if places:
            rows[order[-1]].update(measured(strategy, places))
    if "test" not in strategy.evaluator.matrices:
        assert not any(rows.values())
        return
    matrix = strategy.evaluator.matrices["test"]
    if any(rows.values()):
        expected = [[rows.get(k, {}).get(j) for j in range(TASKS)] for k in range(TASKS)]
        assert matrix.tolist() == expected
        assert matrix.order == order
        summary = matrix.summary()
        for name, value in by_hand(rows, order).items():
            assert summary[name] == pytest.approx(value), name


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
@pytest.mark.parametrize("calls", [1, 2])
def test_what_is_published_is_the_matrix_in_the_order_of_learning(order, calls):
    strategy, right = strategy_of_six(), []
    for task in order:
        for _ in range(calls):
            strategy.train(DATA.train_stream[task])
        right.append(measured(strategy, range(TASKS))[task])
    summary = strategy.evaluator.matrices["test"].summary()
    metrics = strategy.evaluator.get_last_metrics()
    assert summary["learning_accuracy"] == pytest.approx(sum(right) / TASKS)
    assert metrics["StreamForgetting/eval_phase/test_stream"] == summary["forgetting"] is not None
    assert metrics["StreamBWT/eval_phase/test_stream"] == summary["backward_transfer"]


@pytest.mark.parametrize(
    ("every", "mode"), [(0, "epoch"), (1, "epoch"), (2, "epoch"), (1, "iteration"), (3, "iteration")]
)
def test_evaluations_inside_training_fill_the_rows_that_evaluations_after_it_would(every, mode):
    inside, after = strategy_of_six(train_epochs=2, eval_every=every, peval_mode=mode), strategy_of_six(train_epochs=2)
    torch.manual_seed(1)
    inside.train(DATA.train_stream, [DATA.test_stream])
    torch.manual_seed(1)
    for experience in DATA.train_stream:
        after.train(experience)
        after.eval(DATA.test_stream)
    rows = after.evaluator.matrices["test"].tolist()
    assert inside.evaluator.matrices["test"].tolist() == rows
    assert not any(value is None for row in rows for value in row)


def test_joint_training_on_ever_more_data_has_a_row_for_each_experience_that_it_is():
    strategy = strategy_of_six()
    for count in (1, 2, 3):
        parts = [experience.dataset for experience in DATA.train_stream[:count]]
        whole = TensorData(torch.cat([part.x for part in parts]), torch.cat([part.targets for part in parts]))
        for _ in range(2):
            strategy.train(Stream("train", [whole]))
        row = measured(strategy, range(TASKS))
        assert strategy.evaluator.matrices["test"].tolist()[count - 1] == list(row.values())
    assert strategy.evaluator.matrices["test"].order == [0, 1, 2]


def test_weights_put_back_by_early_stopping_have_the_row_that_was_measured_of_them():
    benchmark = toy()
    seen = Recorder()
    stopping = EarlyStoppingPlugin(patience=2, val_stream_name="test", metric_name="Loss_Stream", mode="max")
    strategy = naive(plugins=[stopping, seen], train_epochs=6, eval_every=1)  # the loss falls: the first is the best
    metrics = strategy.train(benchmark.train_stream[0], [benchmark.test_stream[0]])
    assert seen.names.count("after_training_epoch") == 3
    inside = strategy.evaluator.matrices["test"].tolist()[0]
    assert inside[0] is not None
    again = strategy.eval(benchmark.test_stream[0])
    assert strategy.evaluator.matrices["test"].tolist()[0] == inside
    assert {name: pytest.approx(again[name]) for name in metrics} == metrics


def test_a_training_that_was_broken_off_is_no_row():
    class Fail(Recorder):
        def after_update(self, strategy, **kwargs):
            if strategy.experience.current_experience == 1:
                raise ZeroDivisionError

    strategy = strategy_of_six(plugins=[Fail()])
    strategy.train(DATA.train_stream[0])
    first = measured(strategy, range(TASKS))
    with pytest.raises(ZeroDivisionError):
        strategy.train(DATA.train_stream[1])
    assert (strategy.is_training, strategy.is_eval, strategy.experience) == (False, True, None)
    strategy.eval(DATA.test_stream)
    assert strategy.evaluator.matrices["test"].tolist() == [list(first.values()), [None] * 3, [None] * 3]
