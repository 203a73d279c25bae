"""An optimizer's own steps, whatever it does inside them."""

import copy

import pytest
import torch
from torch import nn

from reference.problems import assert_same, assert_same_state, batches, tanh_net, train, weights
from rwalk import RWalk, RWalkConfig, RWalkError

CONFIG = RWalkConfig(ewc_lambda=1.0, delta_t=4)


class PlainSGD(torch.optim.Optimizer):
    """Calls its closure as often as told, and fails when told."""

    def __init__(self, parameters, lr=0.1, closure_calls=1):
        super().__init__(parameters, {"lr": lr})
        self.closure_calls, self.fails = closure_calls, False

    def step(self, closure=None):
        for _ in range(self.closure_calls if closure else 0):
            closure()
        if self.fails:
            raise FloatingPointError("step failed")
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.sub_(group["lr"] * parameter.grad)


class GradFree(PlainSGD):
    """Calls its closure where gradients are off."""

    step = torch.no_grad()(PlainSGD.step)


class Accelerated(torch.optim.Optimizer):
    """An optimizer around another, as Accelerate makes it."""

    def __init__(self, optimizer):  # deliberately without super().__init__
        self.optimizer = optimizer

    def step(self, closure=None):
        self.optimizer.step(closure)


def walk(make_optimizer):
    model = tanh_net()
    optimizer = make_optimizer(model.parameters())
    return model, optimizer, RWalk(model, optimizer, CONFIG)


def train_with_closure(model, optimizer, task, steps, keyword=False):
    for x, y in batches(task, steps):

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            return loss

        returned = optimizer.step(closure=closure) if keyword else optimizer.step(closure)
        assert returned is None or returned.item() >= 0


@pytest.mark.parametrize("keyword", [False, True])
@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.01),
        PlainSGD,
        GradFree,
    ],
)
def test_a_step_with_a_closure_equals_one_without(make_optimizer, keyword):
    model, optimizer, rwalk = walk(make_optimizer)
    other, its_optimizer, its_walk = walk(make_optimizer)
    for task in range(2):
        train(model, optimizer, task, steps=10)
        train_with_closure(other, its_optimizer, task, 10, keyword)
        rwalk.consolidate()
        its_walk.consolidate()
    assert_same(weights(other), weights(model))
    assert_same_state(its_walk.state_dict(), rwalk.state_dict())


def test_the_closures_loss_is_returned():
    model, optimizer, _ = walk(lambda p: torch.optim.SGD(p, lr=0.1))
    loss = model(torch.ones(1, 3).double()).sum()

    def closure():
        loss.backward()
        return loss

    assert optimizer.step(closure) is loss


def test_lbfgs_is_refused():
    model = tanh_net()
    with pytest.raises(RWalkError, match=r"LBFGS.*first-order"):
        RWalk(model, torch.optim.LBFGS(model.parameters()))


def test_an_optimizer_that_calls_its_closure_twice_is_refused_and_named():
    model, optimizer, rwalk = walk(lambda p: PlainSGD(p, closure_calls=2))
    before = weights(model)
    with pytest.raises(RWalkError, match="PlainSGD called its closure 2 times"):
        train_with_closure(model, optimizer, 0, 1)
    assert_same(weights(model), before)
    assert rwalk.steps == 0
    rwalk.state_dict()  # no step is left open


def test_an_optimizer_that_does_not_call_its_closure_is_refused_and_named():
    model, optimizer, rwalk = walk(lambda p: PlainSGD(p, closure_calls=0))
    for _ in range(2):
        train(model, optimizer, task=0, steps=3)
        before = rwalk.state_dict()
        with pytest.raises(RWalkError, match=r"PlainSGD did not call the closure .* call step\(\) without the closure"):
            train_with_closure(model, optimizer, 0, 1)
        assert_same_state(rwalk.state_dict(), before)  # no step is left open
    train(model, optimizer, task=0, steps=1)
    assert (rwalk.steps, rwalk.skipped) == (7, 0)


class Ignoring(torch.optim.SGD):
    def step(self, closure=None):
        super().step()


def test_a_closure_that_is_kept_from_the_parents_step_is_not_missed():
    ours = [walk(lambda p, kind=kind: kind(p, lr=0.1)) for kind in (torch.optim.SGD, Ignoring)]
    for (model, optimizer, _), closure in zip(ours, ([], [lambda: None]), strict=True):
        for x, y in batches(0, 6):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), y).backward()
            optimizer.step(*closure)
    assert_same(weights(ours[0][0]), weights(ours[1][0]))
    assert_same_state(ours[0][2].state_dict(), ours[1][2].state_dict())
    assert ours[1][2].steps == 6


class Lookahead(torch.optim.Optimizer):
    def __init__(self, base):  # deliberately without super().__init__
        self.base_optimizer, self.param_groups = base, base.param_groups

    def step(self, closure=None):
        return self.base_optimizer.step(closure)


def test_an_optimizer_without_hooks_is_refused_with_the_one_inside_it():
    model = tanh_net()
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    outer = Lookahead(base)
    with pytest.raises(RWalkError, match=r"Lookahead was made without Optimizer.__init__.*optimizer.base_optimizer"):
        RWalk(model, outer, CONFIG)
    rwalk = RWalk(model, outer.base_optimizer, CONFIG)
    train(model, base, task=0, steps=3)
    assert rwalk.steps == 3


def test_two_walks_on_one_optimizer_are_refused_until_one_detaches():
    model, optimizer, rwalk = walk(PlainSGD)
    with pytest.raises(RWalkError, match=r"another RWalk.*detach"):
        RWalk(model, optimizer)
    second = RWalk(model, optimizer, attach=False)
    with pytest.raises(RWalkError, match="another RWalk"):
        second.attach()
    rwalk.detach()
    second.attach()
    train(model, optimizer, task=0, steps=2)
    assert (rwalk.steps, second.steps) == (0, 2)


def test_a_wrapped_optimizer_is_followed_at_its_core():
    model = tanh_net()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, Accelerated(inner))
    assert rwalk.optimizer is inner
    train(model, inner, task=0, steps=2)
    assert rwalk.steps == 2


def test_two_optimizers_of_one_model_each_have_their_walk():
    model = tanh_net()
    first = torch.optim.SGD(model[0].parameters(), lr=0.1)
    second = torch.optim.Adam(model[2].parameters(), lr=0.01)
    walks = RWalk(model, first), RWalk(model, second)
    for x, y in batches(0, 5):
        model.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        first.step()
        second.step()
    assert set(walks[0].importances("fisher")) == {"0.weight", "0.bias"}
    assert set(walks[1].importances("fisher")) == {"2.weight", "2.bias"}


def test_a_step_that_raises_leaves_no_trace():
    model, optimizer, rwalk = walk(PlainSGD)
    other, its_optimizer, its_walk = walk(PlainSGD)
    for task in range(2):
        for part in range(3):
            train(model, optimizer, task + part, steps=3)
            train(other, its_optimizer, task + part, steps=3)
            its_optimizer.fails = True
            with pytest.raises(FloatingPointError):
                train(other, its_optimizer, task=9, steps=1)
            with pytest.raises(FloatingPointError):
                train_with_closure(other, its_optimizer, 9, 1)
            its_optimizer.fails = False
        train(model, optimizer, task, steps=1)
        train(other, its_optimizer, task, steps=1)
        rwalk.consolidate()
        its_walk.consolidate()
    assert_same(weights(other), weights(model))
    assert_same_state(its_walk.state_dict(), rwalk.state_dict())
    assert its_walk.skipped == 2 * 3 * 2


def test_a_closure_that_raises_leaves_no_trace():
    _, optimizer, rwalk = walk(lambda p: torch.optim.SGD(p, lr=0.1))
    before = rwalk.state_dict()

    def closure():
        raise KeyError("no batch")

    with pytest.raises(KeyError, match="no batch"):
        optimizer.step(closure)
    assert_same_state(rwalk.state_dict(), before)


def test_after_a_step_that_failed_its_state_is_at_hand():
    model, optimizer, rwalk = walk(PlainSGD)
    train(model, optimizer, task=0, steps=3)
    before = rwalk.state_dict()
    optimizer.fails = True
    with pytest.raises(FloatingPointError):
        train(model, optimizer, task=0, steps=1)
    assert_same_state(rwalk.state_dict(), before)
    assert rwalk.skipped == 1


@pytest.mark.parametrize("look", ["save", "state_dict", "consolidate", "load_state_dict", "copy"])
def test_after_a_step_that_failed_and_a_look_the_next_one_counts(look, tmp_path):
    """As if it had never been tried: whoever asked had ended the step, and the optimizer does not end it once more."""
    walks = walk(PlainSGD), walk(PlainSGD)
    for model, optimizer, _ in walks:
        train(model, optimizer, task=0, steps=3)
    saved = walks[0][2].state_dict()
    walks[1][1].fails = True
    with pytest.raises(FloatingPointError):
        train(*walks[1][:2], task=9, steps=1)
    walks[1][1].fails = False
    arguments = {"save": [tmp_path / "state.safetensors"], "load_state_dict": [saved]}
    if look == "copy":
        walks = copy.deepcopy(walks)
    else:
        for _, _, rwalk in walks:
            getattr(rwalk, look)(*arguments.get(look, []))
    for model, optimizer, rwalk in walks:
        if look == "copy":
            optimizer.closure_calls, optimizer.fails = 1, False  # which torch does not copy
            rwalk.attach()
        train(model, optimizer, task=1, steps=2)
    assert_same(weights(walks[1][0]), weights(walks[0][0]))
    assert_same_state(walks[1][2].state_dict(), walks[0][2].state_dict())


def test_an_rwalk_out_of_reach_is_released():
    model, optimizer = nn.Linear(2, 1), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    RWalk(model, optimizer)
    with pytest.raises(RWalkError, match=r"RWalk\.release\(optimizer\)"):
        RWalk(model, optimizer)
    assert RWalk.release(optimizer)
    assert not RWalk.release(optimizer)
    assert RWalk(model, optimizer).attached


def test_a_copy_is_not_attached_and_can_be():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    original = (model, optimizer, RWalk(model, optimizer))
    twin = copy.deepcopy(original)
    assert (original[2].attached, twin[2].attached) == (True, False)
    twin[2].attach()
    for net, opt, _ in (original, twin):
        net(torch.ones(3, 2)).square().sum().backward()
        opt.step()
    assert twin[2].steps == original[2].steps == 1
    assert torch.equal(twin[2].importances("fisher")["weight"], original[2].importances("fisher")["weight"])


def test_complex_parameters_are_refused():
    model = nn.Module()
    model.weight = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    RWalk(model, optimizer)
    model.weight.abs().sum().backward()
    with pytest.raises(RWalkError, match="weight is complex"):
        optimizer.step()


@pytest.mark.parametrize("at", ["before_step", "after_step"])
def test_a_step_that_was_interrupted_does_not_block_the_next(at, monkeypatch):
    """Control-C may come when the gradient is read and before the step ends."""
    model, optimizer, rwalk = walk(lambda p: torch.optim.SGD(p, lr=0.1))
    train(model, optimizer, task=0, steps=3)
    original = getattr(rwalk, at)

    def interrupted(**how):
        if at == "before_step":
            original(**how)
        raise KeyboardInterrupt

    monkeypatch.setattr(rwalk, at, interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(model, optimizer, task=0, steps=1)
    monkeypatch.undo()
    train(model, optimizer, task=0, steps=2)
    assert (rwalk.steps, rwalk.skipped) == (5, 1)


def test_a_refused_attach_leaves_it_with_the_optimizer_it_had():
    model, optimizer, rwalk = walk(lambda p: torch.optim.SGD(p, lr=0.1))
    train(model, optimizer, task=0, steps=3)
    rwalk.detach()
    with pytest.raises(RWalkError, match="LBFGS"):
        rwalk.attach(torch.optim.LBFGS(model.parameters()))
    assert rwalk.optimizer is optimizer
    rwalk.attach()
    train(model, optimizer, task=0, steps=2)
    assert rwalk.steps == 5


def test_a_model_that_holds_its_rwalk_is_copied():
    model, optimizer, rwalk = walk(lambda p: torch.optim.SGD(p, lr=0.1))
    model.rwalk = rwalk
    train(model, optimizer, task=0, steps=3)
    twin = copy.deepcopy(model)
    assert twin.rwalk.model is twin
    its_optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    twin.rwalk.attach(its_optimizer)
    train(twin, its_optimizer, task=0, steps=2)
    assert (twin.rwalk.steps, twin.rwalk.window_steps) == (5, 1)
    twin.load_state_dict(twin.state_dict())
    assert (rwalk.window_steps, twin.rwalk.window_steps) == (3, 0)
