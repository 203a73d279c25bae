"""The order of the 26 hooks, and what the clock says at each, is Avalanche's."""

import warnings

import pytest
import torch

from peers.cases import mlp, their_strategy, toy_benchmark
from rwalk.integrations.avalanche import to_avalanche
from rwalk.training import HOOKS, Naive

pytestmark = pytest.mark.filterwarnings("ignore")

COUNTERS = (
    "train_iterations",
    "train_exp_counter",
    "train_exp_epochs",
    "train_exp_iterations",
    "train_epoch_iterations",
    "total_iterations",
)


class Recorder:
    """Duck-typed: knows neither framework."""

    supports_distributed = True

    def __init__(self, stop_at=None):
        self.events, self.stop_at = [], stop_at


def _record(hook):
    def method(self, strategy, **kwargs):
        experience = strategy.experience
        now = tuple(getattr(strategy.clock, name) for name in COUNTERS)
        self.events.append(
            (hook, now, strategy.is_training, None if experience is None else experience.current_experience)
        )
        if self.stop_at == (hook, strategy.clock.train_exp_iterations, strategy.clock.train_exp_epochs):
            strategy.stop_training()

    return method


for _hook in HOOKS:
    setattr(Recorder, _hook, _record(_hook))


def _both(options, train, stop_at=None):
    """Events of the same training in either framework."""
    recorded = []
    benchmark = toy_benchmark()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for make, data in ((their_strategy, to_avalanche(benchmark)), (_our_strategy, benchmark)):
            torch.manual_seed(0)
            model, recorder = mlp(), Recorder(stop_at)
            strategy = make(model, torch.optim.SGD(model.parameters(), lr=0.05), [recorder], train_epochs=2, **options)
            train(strategy, data)
            recorded.append(recorder.events)
    return recorded


def _our_strategy(model, optimizer, plugins, **options):
    return Naive(model=model, optimizer=optimizer, plugins=plugins, train_mb_size=6, eval_mb_size=64, **options)


def one_by_one(strategy, data):
    for experience in data.train_stream:
        strategy.train(experience, eval_streams=[data.test_stream])
        strategy.eval(data.test_stream)


def all_in_one_call(strategy, data):
    strategy.train(data.train_stream, eval_streams=[data.test_stream])


def without_eval_streams(strategy, data):
    strategy.train(data.train_stream[0])
    strategy.train(data.train_stream[1])


@pytest.mark.parametrize("train", [one_by_one, all_in_one_call, without_eval_streams])
@pytest.mark.parametrize("peval_mode", ["epoch", "iteration"])
@pytest.mark.parametrize("eval_every", [-1, 0, 1, 2])
def test_hooks_and_clock_are_the_same(eval_every, peval_mode, train):
    theirs, ours = _both({"eval_every": eval_every, "peval_mode": peval_mode}, train)
    assert {event[0] for event in ours} >= {"before_training", "after_update"}
    assert ours == theirs


@pytest.mark.parametrize(
    "stop_at",
    [
        ("after_training_iteration", 1, 0),
        ("before_forward", 2, 0),
        ("after_training_epoch", 4, 0),
        ("before_training_epoch", 4, 1),
        ("before_training_exp", 0, 0),
    ],
)
def test_stopping_early_takes_the_same_way_out(stop_at):
    theirs, ours = _both({}, all_in_one_call, stop_at)
    assert ours == theirs
    assert len(ours) < len(_both({}, all_in_one_call)[1])


def test_the_one_deliberate_difference_a_stop_in_the_last_epoch_does_not_reach_into_the_next_experience():
    theirs, ours = _both({}, all_in_one_call, stop_at=("after_training_iteration", 5, 1))
    trained = [{event[3] for event in events if event[0] == "before_training_iteration"} for events in (theirs, ours)]
    assert trained == [{0, 2}, {0, 1, 2}]
    first = [event for event in ours if event[3] == 0]
    assert first == [event for event in theirs if event[3] == 0]
