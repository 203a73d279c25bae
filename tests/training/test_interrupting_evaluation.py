"""An evaluation in the middle of training changes nothing that training goes on with."""

import pytest
import torch

from reference.problems import assert_same, assert_same_state
from rwalk import RWalkConfig
from rwalk.training import RWalkPlugin
from training.toys import Recorder, naive, net, toy

STATE = ("experience", "is_training", "adapted_dataset", "dataloader", "mbatch", "mb_output", "loss")


def snapshot(strategy):
    state = {name: getattr(strategy, name) for name in STATE}
    modes = [module.training for module in strategy.model.modules()]
    return state, modes, torch.is_grad_enabled()


class EvaluatesInside(Recorder):
    """Evaluates at one hook, and compares the strategy before and after."""

    def __init__(self, hook, stream):
        super().__init__()
        self.count = 0

        def evaluate(strategy, **kwargs):
            before = snapshot(strategy)
            strategy.eval(stream)
            after = snapshot(strategy)
            assert before[1:] == after[1:]
            assert all(before[0][name] is after[0][name] for name in STATE)
            self.count += 1

        setattr(self, hook, evaluate)


@pytest.mark.parametrize(
    ("hook", "times"),
    [("before_training", 1), ("after_training_exp", 2), ("after_training_epoch", 4), ("after_forward", 12)],
)
def test_state_and_modes_are_restored(hook, times):
    benchmark = toy()
    plugin = EvaluatesInside(hook, benchmark.test_stream)
    naive(net(dropout=0.3), plugins=[plugin], train_epochs=2).train(benchmark.train_stream)
    assert plugin.count == times


def test_a_module_that_was_frozen_stays_frozen():
    class Freeze(Recorder):
        def before_training_epoch(self, strategy, **kwargs):
            strategy.model[1].eval()

    benchmark, model = toy(), net(dropout=0.3)
    recorder = Recorder(lambda strategy: [module.training for module in strategy.model], "before_forward")
    strategy = naive(model, plugins=[Freeze(), recorder], eval_every=1, peval_mode="iteration")
    strategy.train(benchmark.train_stream[0], [benchmark.test_stream])
    assert recorder.notes("before_forward") == [[True, False, True, True, True]] * 3


@pytest.mark.parametrize(("every", "mode"), [(0, "epoch"), (1, "epoch"), (1, "iteration")])
def test_training_learns_the_same_with_and_without_evaluation_inside(every, mode):
    benchmark, ends = toy(), []
    for eval_every in (-1, every):
        model = net(dropout=0.3)
        plugin = RWalkPlugin.from_config(RWalkConfig(ewc_lambda=3.0, delta_t=2))
        strategy = naive(model, plugins=[plugin], eval_every=eval_every, peval_mode=mode, train_epochs=2)
        torch.manual_seed(1)
        strategy.train(benchmark.train_stream, [benchmark.test_stream])
        ends.append((model.state_dict(), plugin.rwalk.state_dict(), strategy.clock.total_iterations))
    assert_same(ends[0][0], ends[1][0])
    assert_same_state(ends[0][1], ends[1][1])
    assert ends[1][2] > ends[0][2]  # it did evaluate


def test_evaluation_changes_neither_weights_nor_buffers_nor_gradients():
    benchmark, model = toy(), net(dropout=0.3)
    strategy = naive(model)
    strategy.train(benchmark.train_stream[0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    first, second = strategy.eval(benchmark.test_stream), strategy.eval(benchmark.test_stream)
    assert_same(model.state_dict(), before)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
    assert first == second
    assert model.training


def test_arguments_of_train_reach_the_hooks_of_the_evaluation_inside():
    benchmark, recorder = toy(), Recorder()
    naive(plugins=[recorder], eval_every=0).train(benchmark.train_stream[0], [benchmark.test_stream], tag=7)
    assert all(kwargs == {"tag": 7} for _, kwargs in recorder.events)
    assert "after_eval_forward" in recorder.names
