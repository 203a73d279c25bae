"""The hook protocol: which hooks there are, and that misspelt ones are found."""

import inspect
import re

import pytest

from rwalk.training import HOOKS, BasePlugin, events
from training.toys import Recorder, naive, toy

MOMENTS = [
    "training",
    "training_exp",
    "training_epoch",
    "training_iteration",
    "forward",
    "backward",
    "update",
    "train_dataset_adaptation",
    "eval",
    "eval_exp",
    "eval_iteration",
    "eval_forward",
    "eval_dataset_adaptation",
]


def test_there_are_26_hooks_before_and_after_each_moment():
    assert len(HOOKS) == 26
    assert set(HOOKS) == {f"{when}_{moment}" for moment in MOMENTS for when in ("before", "after")}


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_typed_documented_and_does_nothing_yet(hook):
    method = getattr(BasePlugin, hook)
    signature = inspect.signature(method)
    assert list(signature.parameters) == ["self", "strategy", "kwargs"]
    assert signature.return_annotation == "None"
    assert all(parameter.annotation == "Any" for parameter in list(signature.parameters.values())[1:])
    assert len(method.__doc__) > 20
    assert method(BasePlugin(), object(), anything=1) is None


def test_the_recorded_order_is_that_of_the_documented_loop():
    documented = re.findall(r"^ +-> (\w+)$", events.__doc__, flags=re.MULTILINE)
    benchmark, recorder = toy(experiences=1), Recorder()
    strategy = naive(train_mb_size=100, plugins=[recorder])
    strategy.train(benchmark.train_stream[0])
    strategy.eval(benchmark.test_stream[0])
    assert recorder.names == documented
    assert sorted(documented) == sorted(HOOKS)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("before_trainig", "before_training"),
        ("after_eval_epoch", "after_eval_exp"),
        ("before_optimizer_step", "before_"),
        ("after_fwd", "after_forward"),
    ],
)
def test_a_misspelt_hook_raises_when_the_class_is_made_and_names_the_likely_one(misspelt, meant):
    with pytest.raises(TypeError, match=rf"Mine\.{misspelt} is not a hook; did you mean {meant}"):
        type("Mine", (BasePlugin,), {misspelt: lambda self, strategy, **kwargs: None})


def test_a_misspelt_hook_in_a_subclass_of_a_plugin_raises_too():
    class Mine(BasePlugin):
        def helper(self):
            return "no hook, no complaint"

    with pytest.raises(TypeError, match="Yours"):
        type("Yours", (Mine,), {"after_trainin": lambda self, strategy, **kwargs: None})


def test_a_plugin_that_inherits_nothing_is_called_at_the_hooks_it_has():
    class Duck:
        def __init__(self):
            self.calls = []

        def before_training(self, strategy, **kwargs):
            self.calls.append(("before_training", kwargs))

        def after_forward(self, strategy, **kwargs):
            self.calls.append(("after_forward", kwargs))

    duck = Duck()
    naive(train_mb_size=100, plugins=[duck]).train(toy(1).train_stream[0], tag=3)
    assert duck.calls == [("before_training", {"tag": 3}), ("after_forward", {"tag": 3})]


def test_a_plugin_that_inherits_nothing_is_refused_for_a_misspelt_hook():
    class Duck:
        def before_backwards(self, strategy, **kwargs): ...

    with pytest.raises(TypeError, match=r"Duck\.before_backwards is not a hook; did you mean before_backward\?"):
        naive(plugins=[Duck()])


def test_plugins_are_called_in_the_order_of_the_list():
    calls = []

    def calling(label):
        return type(label, (BasePlugin,), {"before_update": lambda self, strategy, **kwargs: calls.append(label)})()

    naive(train_mb_size=100, plugins=[calling("first"), calling("second")]).train(toy(1).train_stream[0])
    assert calls == ["first", "second"]
