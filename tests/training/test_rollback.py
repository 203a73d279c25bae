"""A state that is refused, by whatever part of a strategy, changes nothing in it."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR

from reference.problems import assert_same, assert_same_state, weights
from rwalk import RWalkConfig
from rwalk.models import IncrementalClassifier, MultiHeadClassifier, MultiTaskNetwork
from rwalk.streams import class_incremental
from rwalk.training import BasePlugin, LRSchedulerPlugin, LwFPlugin, MASPlugin, ReplayPlugin, RWalkPlugin
from training.toys import Recorder, blobs, naive, net, sgd, toy


class Keeps(BasePlugin):
    """Counts in place, and takes back nothing that is odd."""

    def __init__(self):
        self.counts, self.seen = {"iterations": 0}, torch.zeros(1)

    def after_training_iteration(self, strategy, **kwargs):
        self.counts["iterations"] += 1
        self.seen += 1

    def state_dict(self):
        return {"counts": self.counts, "seen": self.seen}

    def load_state_dict(self, state_dict):
        self.counts.update(state_dict["counts"])
        self.seen.copy_(state_dict["seen"])
        if "odd" in self.counts:
            raise LookupError("odd")


def everything(model=None, *, per_class=2, task_labels=False, learned=1):
    """A strategy with plugins that keep something, one that refuses last, and what it has learned."""
    model = net(dropout=0.3) if model is None else model
    optimizer = sgd(model, 0.05)
    plugins = [
        RWalkPlugin.from_config(RWalkConfig(ewc_lambda=2.0, delta_t=2, unfinished="carry")),
        MASPlugin(strength=0.1),
        LwFPlugin(),
        LRSchedulerPlugin(ExponentialLR(optimizer, 0.9), reset_scheduler=False),
        ReplayPlugin(per_class=per_class, seed=3),
        Keeps(),
    ]
    strategy = naive(model, optimizer=optimizer, plugins=plugins, train_epochs=2)
    torch.manual_seed(7)
    for experience in stream(task_labels).train_stream[:learned]:
        strategy.train(experience)
    return strategy


def stream(task_labels=False):
    return class_incremental("toy", blobs(), blobs(seed=1), 2, task_labels=task_labels)


def held(strategy):
    """What others may hold of a strategy, by identity."""
    groups = strategy.optimizer.param_groups
    parameters = [id(p) for p in strategy.model.parameters()]
    return parameters, [id(group) for group in groups], [[id(p) for p in group["params"]] for group in groups]


def assert_unchanged(strategy, state, identities):
    now = strategy.state_dict()
    assert_same(now["model"], state["model"])
    assert now["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
    assert now["optimizer"]["state"].keys() == state["optimizer"]["state"].keys()
    for place, values in now["optimizer"]["state"].items():
        assert_same(values, state["optimizer"]["state"][place])
    assert now["plugins"].keys() == state["plugins"].keys()
    assert repr(now["plugins"]) == repr(state["plugins"])
    core, before = now["plugins"].get("0:RWalkPlugin"), state["plugins"].get("0:RWalkPlugin")
    if core is not None:
        assert_same_state(core["rwalk"], before["rwalk"])
    assert held(strategy) == identities


def spoilt(state, how):
    found = copy.deepcopy(state)
    if how == "model":
        del found["model"]["0.weight"]
    elif how == "optimizer":
        found["optimizer"]["param_groups"][0]["params"].pop()
    elif how == "walk":
        found["plugins"]["0:RWalkPlugin"]["rwalk"]["parameters"]["0.weight"]["fisher"][0, 0] = float("nan")
    elif how == "memory":
        found["plugins"]["4:ReplayPlugin"]["memory"]["per_class"] = 5
    elif how == "counts":
        found["plugins"]["5:Keeps"]["counts"]["odd"] = 1
    else:
        del found["plugins"]["6:EvaluationPlugin"]["last"]
    return found


@pytest.mark.parametrize("how", ["model", "optimizer", "walk", "memory", "counts", "evaluation"])
@pytest.mark.parametrize("learned", [0, 1, 2])
def test_a_state_that_is_refused_changes_nothing(learned, how):
    saved = everything(learned=2).state_dict()
    strategy, twin = everything(learned=learned), everything(learned=learned)
    state, identities = copy.deepcopy(strategy.state_dict()), held(strategy)
    with pytest.raises((ValueError, RuntimeError, LookupError)):
        strategy.load_state_dict(spoilt(saved, how))
    assert_unchanged(strategy, state, identities)
    for one in (strategy, twin):
        torch.manual_seed(5)
        one.train(stream().train_stream[1])
    assert_same(weights(strategy.model), weights(twin.model))
    assert repr(strategy.state_dict()["plugins"]) == repr(twin.state_dict()["plugins"])


@pytest.mark.parametrize("heads", ["single", "multi"])
@pytest.mark.parametrize("learned", [0, 1])
def test_output_layers_that_grow_in_loading_shrink_back(learned, heads):
    def model():
        torch.manual_seed(0)
        if heads == "single":
            return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), IncrementalClassifier(8))
        return MultiTaskNetwork(nn.Sequential(nn.Linear(4, 8), nn.Tanh()), MultiHeadClassifier(8))

    tasks = heads == "multi"
    saved = everything(model(), learned=2, task_labels=tasks).state_dict()
    strategy, twin = (everything(model(), learned=learned, task_labels=tasks) for _ in range(2))
    state, identities = copy.deepcopy(strategy.state_dict()), held(strategy)
    with pytest.raises(LookupError, match="odd"):
        strategy.load_state_dict(spoilt(saved, "counts"))
    assert_unchanged(strategy, state, identities)
    for one in (strategy, twin):
        torch.manual_seed(5)
        one.train(stream(tasks).train_stream[1])
    assert_same(weights(strategy.model), weights(twin.model))


def test_what_a_module_keeps_beside_its_tensors_is_put_back():
    class Knows(nn.Linear):
        known = 0

        def get_extra_state(self):
            return {"known": self.known}

        def set_extra_state(self, state):
            self.known = state["known"]

    def one(known):
        torch.manual_seed(0)
        model = nn.Sequential(Knows(4, 4))
        model[0].known = known
        return naive(model, plugins=[Keeps()])

    strategy, saved = one(1), one(2).state_dict()
    saved["plugins"]["0:Keeps"]["counts"]["odd"] = 1
    with pytest.raises(LookupError, match="odd"):
        strategy.load_state_dict(saved)
    assert strategy.model[0].known == 1


def test_a_refused_state_after_an_interrupted_step_leaves_a_strategy_that_trains():
    class Interrupts(Recorder):
        def before_update(self, strategy, **kwargs):
            strategy.plugins.remove(self)
            handle = strategy.optimizer.register_step_pre_hook(self.stop)
            self.handle = handle

        def stop(self, optimizer, args, kwargs):
            self.handle.remove()
            raise KeyboardInterrupt

    saved = everything(learned=2).state_dict()
    strategy = everything(learned=1)
    strategy.plugins.append(Interrupts())
    with pytest.raises(KeyboardInterrupt):
        strategy.train(stream().train_stream[1])
    before = weights(strategy.model)
    with pytest.raises(LookupError):
        strategy.load_state_dict(spoilt(saved, "counts"))
    assert_same(weights(strategy.model), before)
    strategy.train(stream().train_stream[1])
    strategy.load_state_dict(saved)
    assert_same(weights(strategy.model), {n: v for n, v in saved["model"].items() if n in before})


def test_a_plugin_that_refuses_its_own_state_is_told_of_and_the_rest_is_put_back(caplog):
    class Stubborn(Keeps):
        def load_state_dict(self, state_dict):
            self.counts["iterations"] = -1
            raise LookupError("never")

    strategy = naive(plugins=[Stubborn()])
    strategy.train(toy().train_stream[0])
    state = copy.deepcopy(strategy.state_dict())
    other = naive(net(seed=1), plugins=[Stubborn()])
    other.train(toy().train_stream[0])
    with pytest.raises(LookupError, match="never"):
        strategy.load_state_dict(other.state_dict())
    assert "plugin 0:Stubborn does not take back the state that it had (never)" in caplog.text
    assert_same(strategy.state_dict()["model"], state["model"])
    assert strategy.plugins[0].counts == state["plugins"]["0:Stubborn"]["counts"]
