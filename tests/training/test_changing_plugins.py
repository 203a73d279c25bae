"""Plugins and hooks that come and go while training runs."""

from rwalk.training import BasePlugin
from training.toys import ITERATION, Recorder, naive, toy

BATCHES = 3


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


def test_a_hook_put_on_an_object_is_called_at_once():
    plugin, seen = BasePlugin(), []

    def gain(strategy):
        plugin.before_update = lambda strategy, **kwargs: seen.append(strategy.clock.train_exp_iterations)

    train(At("after_forward", 0, gain), plugin)
    assert seen == [0, 1, 2]


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


def test_a_hook_put_on_a_class_is_called_at_once():
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


def test_a_plugin_that_removes_itself_takes_no_turn_from_the_next():
    class Once(BasePlugin):
        def after_forward(self, strategy, **kwargs):
            strategy.plugins.remove(self)

    after = Recorder()
    train(Once(), after)
    assert after.names.count("after_forward") == BATCHES
