"""Riemannian Walk as a plugin: when it follows, and what it leaves alone."""

import inspect

import pytest
import torch
from torch import nn

from reference.problems import assert_same, assert_same_state, weights
from rwalk import RWalk, RWalkConfig, RWalkError
from rwalk.training import EvaluationPlugin, RWalkPlugin
from training.toys import Recorder, naive, net, sgd, toy


def test_three_settings_with_their_defaults_in_sight():
    signature = "(ewc_lambda: float = 0.1, ewc_alpha: float = 0.9, delta_t: int = 10)"
    assert str(inspect.signature(RWalkPlugin, eval_str=True)) == signature
    assert RWalkPlugin().config == RWalkConfig()
    assert RWalkPlugin(3.0, 0.5, 7).config == RWalkConfig(ewc_lambda=3.0, ewc_alpha=0.5, delta_t=7)
    assert RWalkPlugin(ewc_lambda=0.0).config.ewc_lambda == 0.0
    with pytest.raises(ValueError, match="ewc_alpha=2"):
        RWalkPlugin(ewc_alpha=2)


def test_or_a_whole_config():
    config = RWalkConfig(delta_t=None, penalty="proximal")
    plugin = RWalkPlugin.from_config(config)
    assert plugin.config is config
    assert (plugin.ewc_lambda, plugin.ewc_alpha, plugin.delta_t) == (0.1, 0.9, None)
    with pytest.raises(TypeError, match="expected an RWalkConfig"):
        RWalkPlugin.from_config({"delta_t": 3})


def test_settings_changed_before_training_are_the_cores():
    plugin = RWalkPlugin(delta_t=2)
    plugin.ewc_lambda, plugin.ewc_alpha, plugin.delta_t = 5.0, 0.5, 1
    naive(plugins=[plugin]).train(toy().train_stream)
    assert plugin.rwalk.config == RWalkConfig(ewc_lambda=5.0, ewc_alpha=0.5, delta_t=1)


def test_they_are_the_cores_own_once_there_is_one():
    plugin = RWalkPlugin(delta_t=2)
    naive(plugins=[plugin]).train(toy().train_stream[0])
    plugin.rwalk.config = plugin.config.replace(ewc_lambda=5.0)
    assert plugin.ewc_lambda == 5.0
    plugin.ewc_alpha = 0.5
    assert plugin.rwalk.config == plugin.config == RWalkConfig(ewc_lambda=5.0, ewc_alpha=0.5, delta_t=2)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("ewc_lambda", -1.0, ValueError, "ewc_lambda=-1.0: expected a finite number ≥ 0"),
        ("ewc_alpha", "0.5", TypeError, "ewc_alpha='0.5': expected a number in"),
        ("delta_t", 0, ValueError, "delta_t=0: expected at least 1"),
        ("config", {"delta_t": 3}, TypeError, "config=.*: expected an RWalkConfig"),
    ],
)
def test_bad_settings_are_refused_and_change_nothing(name, value, error, message, trained):
    plugin = RWalkPlugin(delta_t=2)
    if trained:
        naive(plugins=[plugin]).train(toy().train_stream[0])
    with pytest.raises(error, match=message):
        setattr(plugin, name, value)
    assert plugin.config == RWalkConfig(delta_t=2)


def test_settings_that_the_state_does_not_serve_are_refused_and_training_goes_on_as_it_was():
    benchmark, ends = toy(), []
    for asked in (False, True):
        model, plugin = net(), RWalkPlugin(ewc_lambda=5.0, delta_t=2)
        strategy = naive(model, plugins=[plugin])
        torch.manual_seed(1)
        strategy.train(benchmark.train_stream[0])
        if asked:
            with pytest.raises(RWalkError, match="config: delta_t decides how state is kept"):
                plugin.delta_t = 1  # which needs no memory of a window's start
            with pytest.raises(RWalkError, match="config: exclude decides how state is kept"):
                plugin.config = plugin.config.replace(ewc_lambda=9.0, exclude=("0.*",))
            assert plugin.config == plugin.rwalk.config == RWalkConfig(ewc_lambda=5.0, delta_t=2)
        strategy.train(benchmark.train_stream[1])
        ends.append((weights(model), plugin.rwalk.state_dict()))
    (one, first), (other, second) = ends
    assert_same(one, other)
    assert_same_state(first, second)


def test_each_experience_is_a_task_and_only_training_is_followed():
    plugin = RWalkPlugin(delta_t=2)
    attached = Recorder(lambda strategy: plugin.rwalk is not None and plugin.rwalk.attached)
    benchmark = toy()
    strategy = naive(plugins=[plugin, attached], eval_every=0, train_epochs=2)
    strategy.train(benchmark.train_stream, [benchmark.test_stream])
    assert (plugin.rwalk.tasks, plugin.rwalk.steps) == (2, 12)
    assert all(attached.notes("before_update"))
    assert not any(attached.notes("after_training_exp"))
    assert not any(attached.notes("before_eval"))
    before = plugin.rwalk.steps
    strategy.optimizer.step()
    assert plugin.rwalk.steps == before


def test_calls_of_train_one_by_one_are_tasks_too():
    plugin, benchmark = RWalkPlugin(delta_t=2), toy()
    strategy = naive(plugins=[plugin])
    for index, experience in enumerate(benchmark.train_stream):
        strategy.train(experience)
        assert (plugin.rwalk.tasks, plugin.rwalk.steps) == (index + 1, 3 * (index + 1))


def test_the_loss_stays_the_plain_loss_while_the_gradient_holds_the_penalty():
    noted = []

    class Look(Recorder):
        def after_backward(self, strategy, **kwargs):
            self.plain = [parameter.grad.clone() for parameter in strategy.model.parameters()]

        def after_update(self, strategy, **kwargs):
            assert torch.equal(strategy.loss, nn.functional.cross_entropy(strategy.mb_output, strategy.mb_y))
            pairs = zip(self.plain, strategy.model.parameters(), strict=True)
            noted.append(any(not torch.equal(plain, parameter.grad) for plain, parameter in pairs))

    naive(plugins=[RWalkPlugin(ewc_lambda=10.0, delta_t=2), Look()]).train(toy().train_stream)
    assert noted == [False] * 4 + [True] * 2  # in the second task's first step nothing has moved from its anchor


def test_zero_strength_measures_and_changes_nothing():
    ends = []
    for plugins in ([], [RWalkPlugin(ewc_lambda=0.0, delta_t=2)]):
        model = net(dropout=0.3)
        torch.manual_seed(1)
        naive(model, plugins=plugins).train(toy().train_stream)
        ends.append(model.state_dict())
    assert_same(*ends)


def test_an_optimizer_can_be_replaced_between_experiences():
    plugin, benchmark, model = RWalkPlugin(delta_t=2), toy(), net()
    strategy = naive(model, plugins=[plugin])
    strategy.train(benchmark.train_stream[0])
    strategy.optimizer = torch.optim.AdamW(model.parameters())
    strategy.train(benchmark.train_stream[1])
    assert plugin.rwalk.steps == 6
    assert plugin.rwalk.optimizer is strategy.optimizer


def test_two_of_them_in_one_strategy_are_refused():
    strategy = naive(plugins=[RWalkPlugin(), RWalkPlugin()])
    with pytest.raises(RWalkError, match="two RWalkPlugins"):
        strategy.train(toy().train_stream[0])


def test_a_training_that_was_interrupted_can_go_on():
    class Interrupt(Recorder):
        armed = True

        def after_backward(self, strategy, **kwargs):
            if self.armed and strategy.clock.train_exp_iterations == 1:
                self.armed = False
                raise KeyboardInterrupt

    plugin, benchmark = RWalkPlugin(delta_t=2), toy()
    strategy = naive(plugins=[plugin, Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        strategy.train(benchmark.train_stream[0])
    strategy.train(benchmark.train_stream[0])
    assert plugin.rwalk.tasks == 1
    assert all(values.isfinite().all() for values in plugin.rwalk.importances().values())


def test_a_strong_penalty_keeps_what_was_learned_where_it_was():
    moved = []
    for strength in (0.0, 20.0):
        model, benchmark = net(), toy()
        strategy = naive(
            model, optimizer=sgd(model, lr=0.01), plugins=[RWalkPlugin(ewc_lambda=strength, delta_t=2)], train_epochs=5
        )
        torch.manual_seed(1)
        strategy.train(benchmark.train_stream[0])
        before, important = weights(model), strategy.plugins[0].rwalk.importances()
        strategy.train(benchmark.train_stream[1])
        moved.append(sum(float((important[n] * (p - before[n]) ** 2).sum()) for n, p in weights(model).items()))
    assert moved[1] < 0.5 * moved[0]


def test_a_core_of_ones_own_beside_it_is_refused():
    model = net()
    optimizer = sgd(model)
    rwalk = RWalk(model, optimizer)
    with pytest.raises(RWalkError, match="another RWalk is attached"):
        naive(model, optimizer=optimizer, plugins=[RWalkPlugin()]).train(toy().train_stream[0])
    rwalk.detach()


class Interrupts(Recorder):
    def after_backward(self, strategy, **kwargs):
        if strategy.clock.train_exp_counter == 1 and strategy.clock.train_exp_iterations == 1:
            strategy.plugins.remove(self)
            raise KeyboardInterrupt


@pytest.mark.parametrize("new_optimizer", [False, True])
def test_an_interrupted_experience_that_is_tried_again_is_measured_and_protected(new_optimizer):
    benchmark, finals = toy(), []
    for ewc_lambda in (0.0, 50.0):
        plugin = RWalkPlugin.from_config(RWalkConfig(ewc_lambda=ewc_lambda, penalty="proximal"))
        strategy = naive(model=net(), plugins=[plugin, Interrupts()])
        strategy.train(benchmark.train_stream[0])
        steps = plugin.rwalk.steps
        with pytest.raises(KeyboardInterrupt):
            strategy.train(benchmark.train_stream[1])
        if new_optimizer:
            strategy.optimizer = sgd(strategy.model)
        before = strategy.clock.train_iterations
        strategy.train(benchmark.train_stream[1])
        assert plugin.rwalk.steps == steps + 1 + strategy.clock.train_iterations - before
        finals.append(weights(strategy.model))
    free, held = finals
    assert any(not torch.equal(free[name], held[name]) for name in free)


def test_an_optimizer_put_in_place_by_a_later_plugin_is_followed():
    class Swaps(Recorder):
        def before_training_exp(self, strategy, **kwargs):
            strategy.optimizer = sgd(strategy.model)

    plugin = RWalkPlugin()
    strategy = naive(plugins=[plugin, Swaps()])
    strategy.train(toy().train_stream)
    assert plugin.rwalk.steps == strategy.clock.train_iterations
    assert plugin.rwalk.optimizer is strategy.optimizer


def test_an_optimizer_of_fewer_parameters_keeps_the_state_of_the_others():
    benchmark, plugin = toy(), RWalkPlugin()
    strategy = naive(plugins=[plugin])
    strategy.train(benchmark.train_stream[0])
    kept = plugin.rwalk.importances("fisher")
    last = list(strategy.model.parameters())[-2:]
    strategy.optimizer = torch.optim.SGD(last, lr=0.1)
    strategy.train(benchmark.train_stream[1])
    now = plugin.rwalk.importances("fisher")
    assert set(now) == set(kept)
    changed = [name for name in kept if not torch.equal(kept[name], now[name])]
    assert changed == list(kept)[-2:]


def test_the_evaluator_may_be_a_function_that_makes_it():
    made = EvaluationPlugin(track_training=True)
    assert naive(evaluator=lambda: made).evaluator is made
