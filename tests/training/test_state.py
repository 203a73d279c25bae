"""Copies at any time, states between experiences, and nothing left behind."""

import copy
import io
import pickle

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch.optim.lr_scheduler import ExponentialLR

from reference.problems import assert_same, weights
from rwalk.streams import Stream, TensorData
from rwalk.training import (
    HOOKS,
    BasePlugin,
    L2SPPlugin,
    LoggingPlugin,
    LRSchedulerPlugin,
    LwFPlugin,
    MASPlugin,
    RWalkPlugin,
)
from training.toys import Recorder, naive, net, sgd, toy

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda strategy: pickle.loads(pickle.dumps(strategy))}


def everything(**options):
    """A strategy with each plugin that keeps something."""
    model = net(dropout=0.3)
    optimizer = sgd(model, 0.05)
    plugins = [
        RWalkPlugin(ewc_lambda=2.0, delta_t=2),
        MASPlugin(strength=0.1),
        LwFPlugin(),
        L2SPPlugin(strength=0.01),
        LRSchedulerPlugin(ExponentialLR(optimizer, 0.9)),
        LoggingPlugin(),
    ]
    return naive(model, optimizer=optimizer, plugins=plugins, train_epochs=2, **options)


def goes_on(strategy):
    """All that shows how a strategy goes on: it learns the second experience."""
    benchmark = toy()
    torch.manual_seed(5)
    strategy.train(benchmark.train_stream[1])
    metrics = strategy.eval(benchmark.test_stream)
    return weights(strategy.model), metrics, strategy.evaluator.matrices["test"].tolist(), vars(strategy.clock)


def same(found, expected):
    assert_same(found[0], expected[0])
    assert found[1:] == expected[1:]


def begun():
    """After the first experience."""
    strategy, benchmark = everything(), toy()
    torch.manual_seed(1)
    strategy.eval(benchmark.test_stream)
    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.test_stream)
    return strategy


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_goes_on_as_the_original_does(how):
    strategy = begun()
    copied = COPIES[how](strategy)
    assert copied.model is not strategy.model
    expected = goes_on(strategy)
    same(goes_on(copied), expected)


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_made_before_training_trains_the_same(how):
    strategy = everything()
    copied = COPIES[how](strategy)
    ends = []
    for one in (strategy, copied):
        torch.manual_seed(1)
        one.train(toy().train_stream)
        ends.append(weights(one.model))
    assert_same(*ends)


class CopiesAt(Recorder):
    """Copies the strategy at one hook, the second time it comes."""

    def __init__(self, hook, how):
        super().__init__()
        self.calls, self.made = 0, None

        def act(strategy, **kwargs):
            self.calls += 1
            if self.calls == 2 or hook in ("before_training", "after_training", "before_eval", "after_eval"):
                strategy.plugins.remove(self)  # it holds functions, which pickle cannot write
                self.made = COPIES[how](strategy)

        setattr(self, hook, act)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("hook", HOOKS)
def test_a_copy_made_in_any_hook_is_at_rest_and_learns(hook, how):
    benchmark = toy(per_class=3)
    model = net()
    plugin = CopiesAt(hook, how)
    strategy = naive(model, plugins=[RWalkPlugin(delta_t=2), plugin], train_epochs=2, eval_every=1)
    strategy.train(benchmark.train_stream, [benchmark.test_stream])
    copied = plugin.made
    assert (copied.is_training, copied.experience, copied.mbatch, copied.adapted_dataset) == (False, None, None, None)
    copied.train(benchmark.train_stream[0])
    assert copied.model is not strategy.model
    assert copied.eval(benchmark.test_stream)["Loss_Stream/eval_phase/test_stream"] > 0


@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_state_makes_another_strategy_go_on_as_this_one(through_a_file):
    strategy = begun()
    state = strategy.state_dict()
    if through_a_file:
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    other = everything()
    other.load_state_dict(copy.deepcopy(state))
    assert other.evaluator.get_last_metrics() == strategy.evaluator.get_last_metrics()
    expected = goes_on(strategy)
    same(goes_on(other), expected)


def test_a_state_names_a_plugin_that_is_not_there_and_changes_nothing():
    strategy, other = begun(), naive(net(dropout=0.3))
    before = weights(other.model)
    with pytest.raises(
        ValueError, match=r"a state of plugin '0:RWalkPlugin', but the plugins are \['0:EvaluationPlugin'"
    ):
        other.load_state_dict(strategy.state_dict())
    assert_same(weights(other.model), before)


def test_states_that_were_loaded_and_not_used_yet_are_the_states():
    strategy, other = begun(), everything()
    state = strategy.state_dict()
    other.load_state_dict(state)
    assert other.state_dict()["plugins"].keys() == state["plugins"].keys()
    assert_same(other.state_dict()["plugins"]["2:LwFPlugin"]["teacher"], state["plugins"]["2:LwFPlugin"]["teacher"])


def test_training_leaves_no_graph_behind():
    class Fail(Recorder):
        def after_backward(self, strategy, **kwargs):
            raise ZeroDivisionError

    strategy = naive()
    strategy.train(toy().train_stream[0])
    failed = naive(plugins=[Fail()])
    with pytest.raises(ZeroDivisionError):
        failed.train(toy().train_stream[0])
    for one in (strategy, failed):
        assert one.loss.grad_fn is None
        assert one.mb_output.grad_fn is None
        assert (one.is_training, one.experience) == (False, None)


def test_a_strategy_that_failed_trains_on():
    class Fail(BasePlugin):
        failed = False

        def after_update(self, strategy, **kwargs):
            if not self.failed:
                self.failed = True
                strategy.stop_training()
                raise ZeroDivisionError

    strategy = naive(plugins=[Fail()], train_epochs=2)
    with pytest.raises(ZeroDivisionError):
        strategy.train(toy().train_stream[0])
    strategy.train(toy().train_stream[0])
    assert strategy.clock.train_iterations == 6
    assert strategy.clock.train_exp_counter == 1


def test_streams_of_one_name_are_refused_where_they_would_be_mixed_up():
    benchmark, strategy = toy(), naive(eval_every=0)
    others = Stream("test", [TensorData(torch.zeros(3, 4), torch.tensor([0, 1, 2]))])
    with pytest.raises(ValueError, match="two streams are called 'test'"):
        strategy.train(benchmark.train_stream[0], [benchmark.test_stream, others])
    assert strategy.clock.train_iterations == 0
    with pytest.raises(ValueError, match="two streams are called 'test'"):
        strategy.eval([benchmark.test_stream[0], others[0]])
    strategy.eval(benchmark.test_stream)
    with pytest.raises(ValueError, match="another stream was called 'test' before"):
        strategy.eval(others)
    strategy.eval(toy().test_stream)  # the same, made anew
    with pytest.raises(ValueError, match="another stream was called 'test' before"):
        copy.deepcopy(strategy).eval(others)


@pytest.fixture
def accumulating():
    yield Accelerator(cpu=True, gradient_accumulation_steps=2)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.mark.parametrize("how", ["stop", "error"])
def test_gradients_of_an_accumulation_that_was_broken_off_do_not_reach_the_next_experience(accumulating, how):
    class Break(BasePlugin):
        done = False

        def after_update(self, strategy, **kwargs):
            if not self.done:
                self.done = True
                if how == "error":
                    raise ZeroDivisionError
                strategy.stop_training()

    model = net()
    before = weights(model)
    strategy = naive(model, plugins=[Break()], accelerator=accumulating, train_mb_size=3)
    if how == "error":
        with pytest.raises(ZeroDivisionError):
            strategy.train(toy().train_stream[0], shuffle=False)
    else:
        strategy.train(toy().train_stream[0], shuffle=False)
    assert_same(weights(model), before)  # one batch of two
    strategy.train(toy().train_stream[1], shuffle=False)
    plain = net()
    naive(plain, train_mb_size=6).train(toy().train_stream[1], shuffle=False)
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(model)[name], value, rtol=0, atol=1e-6)


def test_what_is_called_when_trained_comes_before_any_plugin_and_once():
    calls = []

    class Asks(Recorder):
        def before_training_exp(self, strategy, **kwargs):
            strategy.when_trained(lambda strategy: calls.append(strategy.clock.train_exp_iterations))

    class Last(Recorder):
        def after_training_exp(self, strategy, **kwargs):
            calls.append("after")

    naive(plugins=[Last(), Asks()], train_epochs=2).train(toy().train_stream)
    assert calls == [6, "after", 6, "after"]
