"""The hooks in the order of the loop in ``rwalk.training.events``, with evaluation inside training."""

import pytest

from training.toys import ITERATION, Recorder, evaluation, naive, toy, training

BATCHES = 3  # 12 samples an experience in batches of 4
EPOCH = ITERATION * BATCHES
EVAL = evaluation(BATCHES, BATCHES)  # both experiences of the test stream


def recorded(experiences=slice(0, 1), eval_streams="test", **options):
    """The hooks of one ``train`` call on these experiences."""
    benchmark, recorder = toy(), Recorder()
    streams = [benchmark.test_stream] if eval_streams == "test" else eval_streams
    naive(plugins=[recorder], **options).train(benchmark.train_stream[experiences], streams)
    return recorder.names


def test_training_without_evaluation():
    assert recorded(train_epochs=2) == training([EPOCH, EPOCH])


def test_several_experiences_in_one_call():
    assert recorded(slice(0, 2)) == training([EPOCH], [EPOCH])


def test_evaluation_alone():
    benchmark, recorder = toy(), Recorder()
    strategy = naive(plugins=[recorder])
    strategy.eval(benchmark.test_stream)
    strategy.eval(benchmark.test_stream[1])
    assert recorder.names == evaluation(BATCHES, BATCHES) + evaluation(BATCHES)


def test_evaluation_before_training_and_after_each_experience():
    found = recorded(slice(0, 2), eval_every=0, train_epochs=2)
    expected = training([EPOCH, EPOCH], [EPOCH, EPOCH])
    assert found == with_evaluation(expected, before=True, after_exp=[0, 1])


def test_evaluation_after_every_epoch_is_not_repeated_at_the_end():
    found = recorded(eval_every=1, train_epochs=2)
    assert found == with_evaluation(training([EPOCH, EPOCH]), before=True, after_epoch=[0, 1])


def test_evaluation_every_second_epoch_counts_from_the_first():
    found = recorded(eval_every=2, train_epochs=3)
    assert found == with_evaluation(training([EPOCH] * 3), before=True, after_epoch=[0, 2])
    found = recorded(eval_every=2, train_epochs=4)
    assert found == with_evaluation(training([EPOCH] * 4), before=True, after_epoch=[0, 2], after_exp=[0])


def test_evaluation_every_second_iteration_starts_again_with_each_experience():
    found = recorded(slice(0, 2), eval_every=2, peval_mode="iteration", train_epochs=2)
    expected = training([EPOCH, EPOCH], [EPOCH, EPOCH])
    due = [0, 2, 4, 6, 8, 10]  # iterations 0, 2 and 4 of 6 in each experience
    assert found == with_evaluation(expected, before=True, after_iteration=due, after_exp=[0, 1])


def test_without_evaluation_streams_the_experiences_trained_on_are_evaluated():
    found = recorded(slice(0, 1), eval_streams=None, eval_every=0)
    assert found == with_evaluation(training([EPOCH]), before=True, after_exp=[0], what=evaluation(BATCHES))


def test_streams_are_evaluated_one_after_the_other():
    benchmark = toy()
    streams = [benchmark.train_stream[0], benchmark.test_stream]
    found = recorded(eval_streams=streams, eval_every=0)
    both = evaluation(BATCHES) + EVAL
    assert found == with_evaluation(training([EPOCH]), before=True, after_exp=[0], what=both)


def with_evaluation(names, *, before, after_exp=(), after_epoch=(), after_iteration=(), what=None):
    """Put evaluations where the n-th occurrence of a hook is due; plugins before the evaluating one see it first."""
    due = {
        "before_training": [0] if before else [],
        "after_training_exp": after_exp,
        "after_training_epoch": after_epoch,
        "after_training_iteration": after_iteration,
    }
    seen, result = dict.fromkeys(due, 0), []
    for name in names:
        result.append(name)
        if name in due:
            if seen[name] in due[name]:
                result += EVAL if what is None else what
            seen[name] += 1
    return result


def test_stopping_in_an_epoch_ends_the_experience_before_its_next_iteration():
    class Stop(Recorder):
        def after_training_iteration(self, strategy, **kwargs):
            super().after_training_iteration(strategy, **kwargs)
            if strategy.experience.current_experience == 0 and strategy.clock.train_exp_iterations == 1:
                strategy.stop_training()

    recorder, benchmark = Stop(), toy()
    naive(plugins=[recorder], train_epochs=2).train(benchmark.train_stream)
    first = training([ITERATION * 2], [EPOCH, EPOCH])
    halted = first.index("after_training_epoch") + 1
    assert recorder.names == [*first[:halted], "before_training_epoch", *first[halted:]]


@pytest.mark.parametrize("epochs", [1, 3])
def test_stopping_in_the_last_epoch_does_not_reach_into_the_next_experience(epochs):
    class Stop(Recorder):
        def before_training_iteration(self, strategy, **kwargs):
            super().before_training_iteration(strategy, **kwargs)
            last = strategy.clock.train_exp_epochs == strategy.train_epochs - 1
            if last and strategy.experience.current_experience == 0:
                strategy.stop_training()

    recorder = Stop()
    naive(plugins=[recorder], train_epochs=epochs).train(toy().train_stream)
    assert recorder.names == training([EPOCH] * (epochs - 1) + [ITERATION], [EPOCH] * epochs)


def test_stopping_before_an_epoch_keeps_it_from_running():
    class Stop(Recorder):
        def before_training_epoch(self, strategy, **kwargs):
            super().before_training_epoch(strategy, **kwargs)
            if strategy.clock.train_exp_epochs == 1:
                strategy.stop_training()

    recorder = Stop()
    naive(plugins=[recorder], train_epochs=3).train(toy().train_stream)
    names = training([EPOCH], [EPOCH])
    halted = [index for index, name in enumerate(names) if name == "after_training_epoch"]
    for index in reversed(halted):
        names.insert(index + 1, "before_training_epoch")
    assert recorder.names == names
