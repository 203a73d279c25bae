"""What the clock shows, and the settings of the evaluation that it triggers."""

import pytest

from rwalk.training import PeriodicEval
from training.toys import Recorder, naive, toy

COUNTERS = (
    "train_exp_counter",
    "train_exp_epochs",
    "train_exp_iterations",
    "train_epoch_iterations",
    "train_iterations",
    "total_iterations",
)


def reading(strategy):
    return tuple(getattr(strategy.clock, counter) for counter in COUNTERS)


def test_the_clock_shows_what_is_finished_at_each_hook():
    recorder = Recorder(reading)
    strategy = naive(plugins=[recorder], train_epochs=2)
    strategy.train(toy().train_stream)  # two experiences, two epochs, three iterations
    iterations = [
        (experience, epoch, 3 * epoch + batch, batch, done, done)
        for experience in range(2)
        for epoch in range(2)
        for batch in range(3)
        for done in [6 * experience + 3 * epoch + batch]
    ]
    assert recorder.notes("before_training_iteration") == iterations
    assert recorder.notes("after_training_iteration") == iterations  # the clock comes last: not counted yet
    assert [note[:4] for note in recorder.notes("after_training_epoch")] == [
        (0, 0, 3, 3),
        (0, 1, 6, 3),
        (1, 0, 3, 3),
        (1, 1, 6, 3),
    ]
    assert [note[:3] for note in recorder.notes("after_training_exp")] == [(0, 2, 6), (1, 2, 6)]
    assert [note[0] for note in recorder.notes("before_training_exp")] == [0, 1]
    assert reading(strategy) == (2, 2, 6, 3, 12, 12)


def test_evaluation_counts_in_the_total_only():
    benchmark = toy()
    strategy = naive(eval_mb_size=5)
    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.test_stream)  # three batches of at most five in each of two experiences
    assert reading(strategy) == (1, 1, 3, 3, 3, 9)


def test_a_second_call_goes_on_counting():
    benchmark = toy()
    strategy = naive()
    strategy.train(benchmark.train_stream[0])
    strategy.train(benchmark.train_stream[1])
    assert reading(strategy) == (2, 1, 3, 3, 6, 6)


def test_evaluation_inside_training_leaves_training_counters_alone():
    benchmark, recorder = toy(), Recorder(reading)
    strategy = naive(plugins=[recorder], eval_every=1, peval_mode="iteration")
    strategy.train(benchmark.train_stream, [benchmark.test_stream])
    assert [note[1:5] for note in recorder.notes("before_training_iteration")] == [
        (0, 0, 0, 0),
        (0, 1, 1, 1),
        (0, 2, 2, 2),
        (0, 0, 0, 3),
        (0, 1, 1, 4),
        (0, 2, 2, 5),
    ]


@pytest.mark.parametrize("value", [-2, 0.5, "1"])
def test_eval_every_is_never_each_experience_or_a_period(value):
    with pytest.raises(ValueError, match=rf"eval_every={value!r}: expected -1 \(never\)"):
        naive(eval_every=value)


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="peval_mode='batch': expected 'epoch' or 'iteration'"):
        PeriodicEval(1, "batch")
