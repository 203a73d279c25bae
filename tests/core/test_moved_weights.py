"""Whatever moves weights from one gradient to the next is part of the walk, the same number attached and by hand."""

import copy
import random

import pytest
import torch
from torch import nn

from core.kernels import needs_compiler
from reference.naive import NaiveRWalk
from reference.problems import (
    assert_close,
    assert_same,
    assert_same_state,
    batches,
    gradients,
    lists,
    tanh_net,
    weights,
)
from rwalk import RWalk, RWalkConfig
from rwalk.core.presets import PRESETS

BACKENDS = ["eager", pytest.param("fused", marks=needs_compiler)]
both = pytest.mark.parametrize("backend", BACKENDS)

SETTINGS = {
    **{name: RWalkConfig.preset(name, ewc_lambda=0.05) for name in PRESETS if name not in ("facil", "laplace")},
    "facil, fisher of steps": RWalkConfig.facil(ewc_lambda=0.01, fisher_source="step"),
    "laplace, fisher of steps": RWalkConfig.laplace(ewc_lambda=0.05, fisher_source="step", fisher_samples=None),
    "relative": RWalkConfig(ewc_lambda=0.5, damping_scale="relative", damping=0.1),
    "proximal": RWalkConfig(ewc_lambda=5.0, penalty="proximal", delta_t=7),
    "one step": RWalkConfig(ewc_lambda=0.5, delta_t=1),
    "warm": RWalkConfig(ewc_lambda=0.5, ewc_alpha=0.01, alpha_warmup=True, rectify="window"),
    "before": RWalkConfig(ewc_lambda=0.5, fisher_in_score="window_start", unfinished="carry", fisher_every=3),
}


def clamp(model, dice):
    for parameter in model.parameters():
        parameter.clamp_(-0.5, 0.5)


def mask(model, dice):
    model[0].weight[:, dice.randrange(3)] = 0.0


def average(model, dice):
    for parameter in model.parameters():
        parameter.lerp_(torch.full_like(parameter, 0.1), 0.01)


MOVES = [clamp, mask, average, lambda model, dice: None]


class Both:
    """RWalk over some steps, and attached the naive twin, which hears of a step when the next one begins."""

    def __init__(self, config, by_hand):
        self.model = tanh_net()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        self.rwalk = RWalk(self.model, self.optimizer, config, attach=not by_hand)
        self.twin, self.pending, self.by_hand = NaiveRWalk(config), None, by_hand

    def settle(self):
        if self.pending is not None and not self.by_hand:
            self.twin.observe(*self.pending, lists(weights(self.model)))
            self.pending = None

    def step(self, x, y):
        self.optimizer.zero_grad()
        nn.functional.mse_loss(self.model(x), y).backward()
        self.settle()
        self.pending = lists(gradients(self.model)), lists(weights(self.model))
        if self.by_hand:
            self.rwalk.before_step()
        self.optimizer.step()
        if self.by_hand:
            self.rwalk.after_step()

    def replace(self, kept):
        """Weights of another moment, which no step has led to."""
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), kept, strict=True):
                parameter.copy_(value)
        self.rwalk.drop_window()
        self.pending = None
        self.twin.change = {name: [0.0] * len(values) for name, values in self.twin.change.items()}
        self.twin.window_steps = 0

    def consolidate(self):
        self.settle()
        self.rwalk.consolidate()
        if not self.by_hand:
            self.twin.end_task(lists(weights(self.model)))


@pytest.mark.parametrize("setting", SETTINGS)
@both
def test_moves_between_steps_are_the_twins(backend, setting):
    dice = random.Random(3)
    config = SETTINGS[setting].replace(backend=backend)
    attached, by_hand = Both(config, by_hand=False), Both(config, by_hand=True)
    kept = None
    for task in range(3):
        for step, (x, y) in enumerate(batches(task, 73)):
            move, moves, rests = dice.choice(MOVES), dice.random() < 0.3, dice.random() < 0.2
            seed = dice.randrange(1000)
            for run in (attached, by_hand):
                run.model[2].weight.requires_grad_(not rests)
                run.step(x, y)
                if moves:
                    with torch.no_grad():
                        move(run.model, random.Random(seed))
                if step == 40:
                    run.replace(kept)
            if step == 20:
                kept = [p.detach().clone() for p in attached.model.parameters()]
        for run in (attached, by_hand):
            run.consolidate()
        rwalk, twin = attached.rwalk, attached.twin
        assert_close(rwalk.importances("fisher"), twin.fisher, 1e-12, "Fisher")
        assert_close(rwalk.importances("score"), twin.score, 1e-12, "score")
        assert_close(rwalk.importances(), twin.importance, 1e-12, "importance")
        assert_same(weights(attached.model), weights(by_hand.model))
        assert_same_state(attached.rwalk.state_dict(), by_hand.rwalk.state_dict())
    assert attached.rwalk.steps == attached.twin.steps == 3 * 73 - 3


def run(backend, after=lambda model, optimizer, rwalk, step: None, steps=25, dtype=torch.float64, **settings):
    model = tanh_net(dtype=dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rwalk = RWalk(model, optimizer, RWalkConfig(backend=backend, ewc_lambda=0.0, **settings))
    for step, (x, y) in enumerate(batches(0, steps)):
        dtype = model[0].weight.dtype
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x.to(dtype)), y.to(dtype)).backward()
        optimizer.step()
        after(model, optimizer, rwalk, step)
    return model, rwalk


@both
def test_an_average_swapped_in_for_an_evaluation_leaves_no_trace(backend):
    def evaluate(model, optimizer, rwalk, step):
        own = [p.detach().clone() for p in model.parameters()]
        for parameter in model.parameters():
            parameter.data.mul_(0.5)
        rwalk.penalty()
        for parameter, value in zip(model.parameters(), own, strict=True):
            parameter.data.copy_(value)

    assert_same_state(run(backend, evaluate)[1].state_dict(), run(backend)[1].state_dict())


@both
def test_load_state_dict_drops_the_last_step_and_the_open_window_and_says_so_once(backend, caplog):
    caplog.set_level("INFO", logger="rwalk")

    def restore(model, optimizer, rwalk, step):
        if step in (4, 16):
            model.load_state_dict(model.state_dict())
            assert (rwalk.steps, rwalk.window_steps) == ({4: 4, 16: 15}[step], 0)

    run(backend, restore)
    assert caplog.text.count("load_state_dict") == 1


@pytest.mark.parametrize("wrap", [lambda model: nn.ModuleDict({"inner": model}), lambda model: model[0]])
def test_it_is_noticed_through_a_wrapper_and_in_a_part(wrap):
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    outside = wrap(model)
    for x, y in batches(0, 3):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    outside.load_state_dict(outside.state_dict())
    assert (rwalk.steps, rwalk.window_steps) == (2, 0)
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())  # a copy of the model is nobody's
    assert rwalk.steps == 2


@pytest.mark.parametrize("delta_t", [4, None])
@pytest.mark.parametrize("part", ["target", "nothing"])
@both
def test_loading_what_is_not_followed_is_no_replacement(backend, part, delta_t):
    """A target network that lies in the same module is refreshed; or nothing at all is loaded."""
    scores = []
    for refreshes in (False, True):
        torch.manual_seed(0)
        model = nn.ModuleDict({"online": tanh_net(), "target": tanh_net().requires_grad_(False)})
        rwalk = RWalk(
            model, optimizer := torch.optim.SGD(model["online"].parameters(), lr=0.1),
            RWalkConfig(delta_t=delta_t, backend=backend),
        )  # fmt: skip
        for index, (x, y) in enumerate(batches(0, 11)):
            optimizer.zero_grad()
            nn.functional.mse_loss(model["online"](x), y).backward()
            optimizer.step()
            if refreshes and index % 3 == 2 and part == "target":
                model["target"].load_state_dict(model["online"].state_dict())
            elif refreshes and index % 3 == 2:
                model.load_state_dict({}, strict=False)
        scores.append(rwalk.state_dict())
        if refreshes and part == "target":  # of the whole it does replace them
            model.load_state_dict(model.state_dict())
            assert rwalk.window_steps == 0
    assert_same_state(*scores)


class Renames(nn.Linear):
    """Takes what an older version called otherwise, in a way of its own."""

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        with torch.no_grad():
            self.weight.copy_(state_dict.pop(prefix + "old_weight"))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


@pytest.mark.parametrize("by", ["the module", "a hook of later"])
def test_weights_that_are_loaded_under_other_names_are_replaced_too(by):
    model = (Renames if by == "the module" else nn.Linear)(3, 2, bias=False).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    for x, _ in batches(0, 3):
        optimizer.zero_grad()
        model(x[:, :3]).square().sum().backward()
        optimizer.step()

    def rename(module, state_dict, prefix, *_):
        state_dict[prefix + "weight"] = state_dict.pop(prefix + "old_weight")

    if by == "a hook of later":
        model.register_load_state_dict_pre_hook(rename)
    assert rwalk.window_steps == 3
    model.load_state_dict({"old_weight": torch.ones(2, 3)}, strict=False)
    assert bool((model.weight == 1).all())
    assert rwalk.window_steps == 0


def test_weights_that_a_loaded_state_follows_are_watched_too():
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    for x, y in batches(0, 3):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    state, optimizer = rwalk.state_dict(), torch.optim.SGD(model[2].parameters(), lr=0.1)
    rwalk.detach()
    later = RWalk(model, optimizer)
    later.load_state_dict(state)
    assert later.window_steps == 3
    model[0].load_state_dict(model[0].state_dict())
    assert later.window_steps == 0


class Lookahead(torch.optim.Optimizer):
    """Every few steps of the inner optimizer the weights go half the way back to where they were."""

    def __init__(self, inner):
        super().__init__(inner.param_groups, {})
        self.optimizer, self.slow, self.count = inner, None, 0

    def step(self, closure=None):
        listed = [p for group in self.param_groups for p in group["params"]]
        self.slow = self.slow or [p.detach().clone() for p in listed]
        self.optimizer.step(closure)
        self.count += 1
        if self.count % 3 == 0:
            with torch.no_grad():
                for parameter, slow in zip(listed, self.slow, strict=True):
                    parameter.lerp_(slow, 0.5)
                    slow.copy_(parameter)


def test_what_wraps_the_optimizer_is_part_of_the_walk():
    model = tanh_net()
    optimizer = Lookahead(torch.optim.SGD(model.parameters(), lr=0.1))
    rwalk, twin = RWalk(model, optimizer), NaiveRWalk(RWalkConfig())
    for x, y in batches(0, 25):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        plain, before = lists(gradients(model)), lists(weights(model))
        optimizer.step()
        twin.observe(plain, before, lists(weights(model)))
    rwalk.consolidate()
    twin.end_task(lists(weights(model)))
    assert_close(rwalk.importances("score"), twin.score, 1e-12, "score")


class Sharp(torch.optim.Optimizer):
    """Sharpness-aware: the closure's gradient is taken at a point that the step does not begin at."""

    def __init__(self, params, lr=0.1, rho=0.05):
        super().__init__(params, {"lr": lr})
        self.inner, self.rho = torch.optim.SGD(self.param_groups, lr=lr), rho

    @torch.no_grad()
    def step(self, closure):
        listed = [p for group in self.param_groups for p in group["params"]]
        old = [p.detach().clone() for p in listed]
        for parameter in listed:
            parameter.add_(torch.ones_like(parameter), alpha=self.rho)
        with torch.enable_grad():
            closure()
        for parameter, value in zip(listed, old, strict=True):
            parameter.copy_(value)
        self.inner.step()


@pytest.mark.parametrize("delta_t", [1, 4])
@pytest.mark.parametrize("ewc_lambda", [0.0, 2.0])
@both
def test_a_step_begins_where_the_optimizer_begins_it(backend, ewc_lambda, delta_t):
    states = []
    for inner in (True, False):
        model = tanh_net()
        optimizer = Sharp(model.parameters())
        config = RWalkConfig(ewc_lambda=ewc_lambda, delta_t=delta_t, backend=backend)
        rwalk = RWalk(model, optimizer.inner if inner else optimizer, config)
        for task in range(2):
            for x, y in batches(task, 13):

                def closure(x=x, y=y, model=model, optimizer=optimizer):
                    optimizer.zero_grad()
                    nn.functional.mse_loss(model(x), y).backward()

                optimizer.step(closure)
            rwalk.consolidate()
        states.append((rwalk.state_dict(), weights(model)))
    assert_same_state(states[0][0], states[1][0])
    assert_same(states[0][1], states[1][1])


@both
def test_another_dtype_in_mid_window_costs_nothing(backend):
    def to_double(model, optimizer, rwalk, step):
        if step == 13:
            model.double()

    _, rwalk = run(backend, to_double, dtype=torch.float32)
    _, plain = run(backend, dtype=torch.float32)
    assert rwalk.steps == 25
    assert rwalk.window_steps == 5
    for name, score in plain.importances("score").items():
        torch.testing.assert_close(rwalk.importances("score")[name].float(), score, rtol=2e-3, atol=0.5)
    assert rwalk.importances("score")["0.weight"].dtype is torch.float64


@both
def test_another_memory_layout_in_mid_window_costs_nothing(backend):
    states = []
    for changes in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 4 * 4, 2)).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        rwalk = RWalk(model, optimizer, RWalkConfig(backend=backend))
        for step in range(25):
            if changes and step == 13:
                model.to(memory_format=torch.channels_last)
            optimizer.zero_grad()
            model(torch.randn(5, 3, 6, 6).double()).square().mean().backward()
            optimizer.step()
        states.append(rwalk.state_dict())
    for name, values in states[0]["parameters"].items():
        torch.testing.assert_close(states[1]["parameters"][name]["score"], values["score"], rtol=1e-9, atol=1e-9)
