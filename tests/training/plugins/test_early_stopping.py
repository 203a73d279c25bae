"""Early stopping: when, and with which weights."""

import pytest
import torch

from reference.problems import assert_same, weights
from rwalk import RWalkConfig
from rwalk.streams import Stream
from rwalk.training import EarlyStoppingPlugin, EvaluationPlugin, RWalkPlugin, WeightAveragePlugin
from training.toys import ITERATION, Recorder, naive, net, toy, training

KEY = "Top1_Acc_Stream/eval_phase/valid_stream"


class Scripted(EvaluationPlugin):
    """Reports the values it was given, one an evaluation, as the watched metric."""

    def __init__(self, *values, key=KEY):
        super().__init__()
        self.values, self.key = list(values), key

    def after_eval(self, strategy, **kwargs):
        super().after_eval(strategy, **kwargs)
        self._last[self.key] = self.values.pop(0)


def run(values, *, epochs=8, experiences=1, every="epoch", key=KEY, **settings):
    """Train under scripted values (the first is of before training); weights after each period, and at the end."""
    benchmark, model = toy(), net()
    recorder = Recorder(lambda strategy: weights(strategy.model), f"after_training_{every}")
    plugin = EarlyStoppingPlugin(**{"patience": 2, "peval_mode": every, **settings})
    strategy = naive(
        model,
        plugins=[plugin, recorder],
        evaluator=Scripted(*values, key=key),
        eval_every=1,
        peval_mode=every,
        train_epochs=epochs,
    )
    valid = Stream("valid", [experience.dataset for experience in benchmark.test_stream])
    strategy.train(benchmark.train_stream[:experiences], [valid])
    return recorder, recorder.notes(f"after_training_{every}"), model


def test_training_stops_after_the_patience_and_the_best_weights_return():
    _, snapshots, model = run([0.0, 0.5, 0.7, 0.6, 0.7, 0.9])
    assert len(snapshots) == 4  # best after the second epoch, two without improvement
    assert_same(weights(model), snapshots[1])


def test_training_that_improves_is_not_stopped():
    _, snapshots, model = run([0.0, 0.1, 0.2, 0.2, 0.3, 0.3], epochs=5)
    assert len(snapshots) == 5
    assert_same(weights(model), snapshots[-1])


@pytest.mark.parametrize(("mode", "epochs", "best"), [("min", 4, 1), ("max", 3, 0)])
def test_less_or_more_can_be_better(mode, epochs, best):
    loss = "Loss_Stream/eval_phase/valid_stream"
    _, snapshots, model = run([9.0, 3.0, 1.0, 2.0, 1.5], mode=mode, metric_name="Loss_Stream", key=loss)
    assert len(snapshots) == epochs
    assert_same(weights(model), snapshots[best])


def test_an_improvement_within_the_margin_is_none():
    _, snapshots, model = run([0.0, 0.5, 0.55, 0.58], margin=0.1)
    assert len(snapshots) == 3
    assert_same(weights(model), snapshots[0])


def test_between_iterations_the_one_begun_is_run_and_the_best_weights_return_after_it():
    recorder, snapshots, model = run([0.0, 0.5, 0.7, 0.6, 0.6, 0.9, 0.9], every="iteration", epochs=3)
    assert len(snapshots) == recorder.names.count("before_update") == 5
    assert_same(weights(model), snapshots[1])


def test_each_experience_has_its_own_best():
    first, second = [0.9, 0.8, 0.8], [0.1, 0.2, 0.1, 0.1]
    _, snapshots, model = run([0.0, *first, *second], experiences=2, epochs=6)
    assert len(snapshots) == 3 + 4
    assert_same(weights(model), snapshots[4])


def test_the_hooks_of_a_stopped_experience_are_complete():
    recorder, _, _ = run([0.0, 0.5, 0.4, 0.4], epochs=6)
    trained = [name for name in recorder.names if "eval" not in name]
    expected = training([ITERATION * 3] * 3)
    expected.insert(expected.index("after_training_exp"), "before_training_epoch")
    assert trained == expected


def test_a_metric_that_is_not_measured_is_named():
    strategy = naive(plugins=[EarlyStoppingPlugin(patience=1)], train_epochs=2)
    with pytest.raises(ValueError, match=f"early stopping watches {KEY!r}, which is not measured"):
        strategy.train(toy().train_stream[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patience": 0}, "patience=0: expected at least 1"),
        ({"patience": 1, "mode": "best"}, "mode='best': expected 'max' or 'min'"),
        ({"patience": 1, "peval_mode": "batch"}, "peval_mode='batch': expected 'epoch' or 'iteration'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EarlyStoppingPlugin(**settings)


class Told(EvaluationPlugin):
    """Reports the values it was given while an experience is learned."""

    def __init__(self, values):
        super().__init__()
        self.values = list(values)

    def after_eval(self, strategy, **kwargs):
        learning = self._learning
        super().after_eval(strategy, **kwargs)
        if learning:
            self._last[KEY] = self.values.pop(0)


NAN = float("nan")


def told(values, *, epochs, every=1, mode="epoch", plugins=(), before=(), better="max"):
    """Weights after each epoch, and at the end of training under these values."""
    benchmark, model = toy(), net()
    keep = Recorder(lambda strategy: weights(strategy.model), "after_training_epoch")
    stopping = EarlyStoppingPlugin(patience=2, mode=better)
    strategy = naive(
        model,
        plugins=[*before, keep, stopping, *plugins],
        evaluator=Told(values),
        eval_every=every,
        peval_mode=mode,
        train_epochs=epochs,
    )
    strategy.train(benchmark.train_stream[0], [Stream("valid", [benchmark.test_stream[0].dataset])])
    return keep.notes("after_training_epoch"), weights(model)


@pytest.mark.parametrize(
    ("values", "every", "epochs", "ran", "best"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], 3, 12, 12, 12),  # epochs 1, 4, 7, 10, and the last one
        ([0.1, 0.2, 0.3, 0.5, 0.4], 3, 12, 12, 10),
        ([0.1, 0.5, 0.4, 0.3, 0.2], 3, 12, 7, 4),  # nothing better in the three epochs up to the next look
        ([0.1, 0.5, 0.4, 0.3, 0.2], 2, 9, 5, 3),
        ([0.5, 0.9, 0.8, 0.7, 0.6], 1, 5, 4, 2),
        ([0.5, 0.9, 0.8, 0.7], 1, 4, 4, 2),
        ([0.5, 0.9, 0.8], 1, 3, 3, 2),
        ([0.7], 1, 1, 1, 1),
        ([NAN, 0.2, 0.3, 0.4, 0.5, 0.6], 1, 6, 6, 6),
        ([0.2, NAN, 0.1], 1, 6, 3, 1),
        ([0.2, 0.3, NAN], 1, 3, 3, 2),
        ([NAN, NAN, NAN], 1, 6, 2, 2),
    ],
)
@pytest.mark.parametrize("mode", ["max", "min"])
def test_only_what_is_measured_counts_and_the_best_of_it_stays(values, every, epochs, ran, best, mode):
    signed = values if mode == "max" else [-value for value in values]
    seen, end = told(signed, epochs=epochs, every=every, better=mode)
    assert len(seen) == ran
    assert_same(end, seen[best - 1])


@pytest.mark.parametrize("listed", ["before", "after"])
def test_rwalk_keeps_the_walk_and_anchors_at_the_best_weights_in_whichever_order(listed):
    plugin = RWalkPlugin(ewc_lambda=1.0, delta_t=4)
    values = [0.5, 0.4, 0.3]
    seen, end = told(values, epochs=9, **{"before" if listed == "before" else "plugins": [plugin]})
    assert len(seen) == 3
    assert_same(end, seen[0])
    found = plugin.rwalk.state_dict()
    assert (found["tasks"], found["steps"]) == (1, 9)
    for name, parameter in end.items():
        assert_same({name: found["parameters"][name]["anchor"]}, {name: parameter})


@pytest.mark.parametrize("listed", ["before", "after"])
@pytest.mark.parametrize("values", [[0.5, 0.9, 0.8, 0.7], [0.5, 0.9, 0.8], [0.1, 0.2, 0.3]])
def test_beside_an_average_of_weights_the_best_stay_and_rwalk_anchors_there(values, listed):
    walk = RWalkPlugin.from_config(RWalkConfig(anchor_at="average", average_every=2))
    plugins = [walk, WeightAveragePlugin(2)]
    seen, end = told(values, epochs=len(values), **{"before" if listed == "before" else "plugins": plugins})
    assert_same(end, seen[values.index(max(values))])
    assert_same(walk.rwalk.anchors(), end)


def test_the_walk_of_a_stopped_experience_is_that_of_the_same_steps_without_a_stop():
    states = []
    for stops in (True, False):
        plugin = RWalkPlugin(ewc_lambda=1.0, delta_t=4)  # nine steps: a window is open when training stops
        torch.manual_seed(3)
        if stops:
            told([0.5, 0.4, 0.3], epochs=9, plugins=[plugin])
        else:
            naive(plugins=[plugin], train_epochs=3, eval_every=1).train(
                toy().train_stream[0], [Stream("valid", [toy().test_stream[0].dataset])]
            )
        states.append(plugin.rwalk.state_dict()["parameters"])
    for name, expected in states[1].items():
        for quantity in ("fisher", "score", "importance"):
            assert torch.equal(states[0][name][quantity], expected[quantity]), (name, quantity)
        assert not torch.equal(states[0][name]["anchor"], expected["anchor"])


def test_a_value_measured_between_iterations_belongs_to_the_weights_of_that_moment():
    """Evaluated in the midst of epochs, which patience counts: the best weights are those that were measured."""
    seen = Recorder(lambda strategy: weights(strategy.model), "after_training_iteration")
    _, end = told([0.1, 0.9, 0.2, 0.1, 0.1, 0.1], epochs=3, every=2, mode="iteration", plugins=[seen])
    assert_same(end, seen.notes("after_training_iteration")[2])  # iterations 1 and 3 were measured first
