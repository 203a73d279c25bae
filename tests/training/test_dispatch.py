"""Hooks looked up beforehand are the hooks that would have been found on the spot."""

import pytest

from rwalk.training import HOOKS, BasePlugin
from rwalk.training.dispatch import ActingPlugins
from training.toys import ITERATION, Recorder, naive, toy

BATCHES = 3
INSIDE = [*ITERATION, "before_eval_iteration", "before_eval_forward", "after_eval_forward", "after_eval_iteration"]


class At(BasePlugin):
    """Calls a function once, at a hook of the iteration whose number is given."""

    def __init__(self, hook, iteration, act):
        def call(strategy, **kwargs):
            if strategy.clock.train_exp_iterations == iteration:
                act(strategy)

        setattr(self, hook, call)


def train(*plugins, epochs=1):
    benchmark = toy(1, per_class=3)
    strategy = naive(plugins=list(plugins), train_epochs=epochs)
    strategy.train(benchmark.train_stream[0])
    return strategy


@pytest.mark.parametrize("hook", INSIDE)
def test_inside_an_iteration_hooks_that_nobody_overrides_are_not_called(hook, monkeypatch):
    called = []
    monkeypatch.setattr(BasePlugin, hook, lambda self, strategy, **kwargs: called.append(self))
    strategy = train(BasePlugin())
    strategy.eval(toy(1).test_stream)
    acting = {type(plugin) for plugin in called}
    assert BasePlugin not in acting


@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook not in INSIDE])
def test_everywhere_else_every_hook_is_called(hook, monkeypatch):
    called = []
    monkeypatch.setattr(BasePlugin, hook, lambda self, strategy, **kwargs: called.append(self))
    plugin = BasePlugin()
    train(plugin).eval(toy(1).test_stream)
    assert plugin in called


def test_a_plugin_added_inside_an_iteration_is_called_at_the_next_hook():
    late = Recorder()
    train(At("after_forward", 1, lambda strategy: strategy.plugins.append(late)))
    assert late.names[: len(ITERATION)] == [*ITERATION[3:], *ITERATION[:3]]
    assert late.names.count("after_update") == BATCHES - 1


def test_a_plugin_removed_inside_an_iteration_is_called_no_more():
    gone = Recorder()
    train(gone, At("after_forward", 1, lambda strategy: strategy.plugins.remove(gone)))
    assert gone.names[-3:] == ITERATION[:3]
    assert gone.names.count("before_training_iteration") == 2


def test_a_new_list_of_plugins_takes_over_at_once():
    old, new = Recorder(), Recorder()

    def swap(strategy):
        strategy.plugins = [new if plugin is old else plugin for plugin in strategy.plugins]

    train(old, At("before_backward", 0, swap))
    assert old.names[-1] == "before_backward"
    assert new.names[0] == "after_backward"


def test_a_hook_put_on_an_object_is_called_from_the_next_iteration_on_at_the_latest():
    plugin, seen = BasePlugin(), []

    def gain(strategy):
        plugin.before_update = lambda strategy, **kwargs: seen.append(strategy.clock.train_exp_iterations)

    train(At("after_forward", 0, gain), plugin)
    assert seen[-2:] == [1, 2]


def test_a_hook_taken_from_an_object_is_called_no_more():
    plugin, seen = BasePlugin(), []
    plugin.before_update = lambda strategy, **kwargs: seen.append(strategy.clock.train_exp_iterations)
    train(At("after_forward", 1, lambda strategy: delattr(plugin, "before_update")), plugin)
    assert seen == [0]


def test_a_hook_replaced_on_an_object_is_replaced_at_once():
    plugin, seen = BasePlugin(), []
    plugin.before_update = lambda strategy, **kwargs: seen.append("old")

    def swap(strategy):
        plugin.before_update = lambda strategy, **kwargs: seen.append("new")

    train(At("after_forward", 1, swap), plugin)
    assert seen == ["old", "new", "new"]


def test_a_hook_put_on_a_class_is_called_from_the_next_epoch_on_at_the_latest():
    class Plugin(BasePlugin):
        def after_training_epoch(self, strategy, **kwargs):
            Plugin.before_update = lambda self, strategy, **kwargs: seen.append(strategy.clock.train_exp_iterations)

    seen = []
    train(Plugin(), epochs=2)
    assert seen == [3, 4, 5]


def test_an_object_of_another_class_may_gain_a_hook_at_any_time():
    class Duck:
        pass

    duck, seen = Duck(), []

    def gain(strategy):
        duck.before_update = lambda strategy, **kwargs: seen.append(strategy.clock.train_exp_iterations)

    train(At("after_forward", 1, gain), duck)
    assert seen == [1, 2]


def test_a_hook_may_be_switched_off():
    off = type("Off", (Recorder,), {"before_update": None})()
    train(off)
    assert "before_update" not in off.names
    assert "after_update" in off.names


def test_the_loss_is_open_to_whoever_acts_between_its_beginning_and_the_backward_pass():
    for hook in HOOKS:
        plugin = type("Plugin", (BasePlugin,), {hook: lambda self, strategy, **kwargs: None})()
        expected = hook in {"before_forward", "after_forward", "before_backward"}
        assert ActingPlugins([BasePlugin(), plugin]).on_loss is expected
