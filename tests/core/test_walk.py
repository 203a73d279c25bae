"""Steps that are certain are accounted for in one pass, and come to the same, bit for bit, as others."""

import copy
import pickle
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from core.kernels import needs_compiler
from reference.problems import assert_same_state
from reference.strategies import configs, histories
from rwalk import RWalk, RWalkConfig

BACKENDS = ["eager", pytest.param("fused", marks=needs_compiler)]


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """Random histories make for many warnings of idle tasks."""
    caplog.set_level("ERROR", logger="rwalk")


def walked(history, config, *, certain, skipped=lambda: False, looks=lambda rwalk: rwalk):
    """The state after every task. ``looks`` is called after each step, and gives back what to go on with."""
    model = history.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=history.lr, momentum=0.9)
    rwalk, states = RWalk(model, optimizer, config, attach=False), []
    for task in history.tasks:
        for step in task:
            history.load(model, step)
            if skipped():
                rwalk.before_step(certain=certain())
                rwalk.after_step(skipped=True)
                history.load(model, step)  # without penalty
            rwalk.before_step(certain=certain())
            optimizer.step()
            rwalk.after_step()
            rwalk = looks(rwalk)
        rwalk.consolidate()
        states.append(rwalk.state_dict())
    return states


def assert_same_states(found, expected):
    for mine, other in zip(found, expected, strict=True):
        assert_same_state(mine, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", BACKENDS)
@given(data=st.data())
def test_certain_steps_are_as_good_as_others(backend, dtype, data):
    config = data.draw(configs(backend=backend, scaling="max", penalty="proximal"))
    history = data.draw(histories(dtype))
    dice = random.Random(data.draw(st.integers(0, 1000)))
    around = walked(history, config, certain=lambda: False)
    assert_same_states(walked(history, config, certain=lambda: True), around)
    assert_same_states(walked(history, config, certain=lambda: dice.random() < 0.5), around)


@pytest.mark.parametrize("backend", BACKENDS)
@given(data=st.data())
def test_looking_changes_no_bit(backend, data):
    config, history = data.draw(configs(backend=backend)), data.draw(histories(max_scale=0))
    dice = random.Random(data.draw(st.integers(0, 1000)))

    def look(rwalk):
        looks = (RWalk.state_dict, RWalk.importances, lambda walk: walk.importances("score"), RWalk.penalty)
        dice.choice(looks)(rwalk)
        return rwalk

    def resume(rwalk):
        if dice.random() < 0.5 or not rwalk.importances("fisher"):
            return rwalk
        again = RWalk(rwalk.model, rwalk.optimizer, rwalk.config, attach=False)
        again.load_state_dict(rwalk.state_dict())
        return again

    undisturbed = outcome(history, config)
    assert_same_outcome(outcome(history, config, looks=look), undisturbed)
    assert_same_outcome(outcome(history, config, looks=resume), undisturbed)


def outcome(history, config, **how):
    """The states, or with what error they could not be had (a strong penalty may diverge)."""
    try:
        return walked(history, config, certain=lambda: True, **how)
    except Exception as error:
        return str(error)


def assert_same_outcome(found, expected):
    if isinstance(expected, str):
        assert found == expected
    else:
        assert_same_states(found, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@given(data=st.data())
def test_certain_steps_that_are_skipped_after_all_leave_no_more_than_roundings(backend, data):
    config = data.draw(configs(backend=backend, scaling="none", penalty="proximal", rectify="penalty"))
    history = data.draw(histories(max_scale=0))
    dice = random.Random(data.draw(st.integers(0, 1000)))
    expected = walked(history, config, certain=lambda: True)
    found = walked(history, config, certain=lambda: True, skipped=lambda: dice.random() < 0.3)
    for mine, other in zip(found, expected, strict=True):
        assert mine["steps"] == other["steps"]
        for name, values in other["parameters"].items():
            assert mine["parameters"][name]["updates"] == values["updates"]
            for quantity in ("fisher", "loss_change", "anchor"):
                if quantity in values:
                    torch.testing.assert_close(
                        mine["parameters"][name][quantity], values[quantity], rtol=1e-9, atol=1e-12
                    )


def two_steps(backend, gradients, *, raises_at=None, alpha=0.3):
    """One parameter of three elements under these gradients; one step of them is not taken."""
    model = nn.ParameterDict({"p": nn.Parameter(torch.ones(3, dtype=torch.float64))})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    config = RWalkConfig(ewc_alpha=alpha, delta_t=10, backend=backend)
    rwalk = RWalk(model, optimizer, config, attach=False)
    for index, gradient in enumerate(gradients):
        model["p"].grad = torch.tensor(gradient, dtype=torch.float64)
        rwalk.before_step(certain=True)
        if index == raises_at:
            rwalk.abandon_step()
        else:
            optimizer.step()
            rwalk.after_step()
    return rwalk


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gradient_that_is_not_finite_and_not_used_spares_the_other_elements(backend, at):
    gradients = [[1.0, 2.0, 3.0], [0.5, -1.0, 1.0], [2.0, 0.1, 0.2], [1.0, 1.0, 1.0], [0.3, 0.2, 0.1]]
    without = two_steps(backend, gradients)
    gradients.insert(at, [float("inf"), 7.0, float("nan")])
    found = two_steps(backend, gradients, raises_at=at)
    for kind in ("fisher", "score"):
        mine, other = found.importances(kind)["p"], without.importances(kind)["p"]
        assert bool(mine.isfinite().all())
        torch.testing.assert_close(mine[1], other[1], rtol=1e-12, atol=0.0)
    found.consolidate()


def moved_between(backend, certain, moves, steps=6, delta_t=10):
    """One parameter; after the steps numbered in ``moves`` its weights are moved by something else."""
    model = nn.ParameterDict({"p": nn.Parameter(torch.tensor([1.0], dtype=torch.float64))})
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    rwalk = RWalk(model, optimizer, RWalkConfig(delta_t=delta_t, ewc_alpha=0.5, backend=backend), attach=False)
    for step in range(steps):
        model["p"].grad = torch.tensor([2.0**-step], dtype=torch.float64)
        rwalk.before_step(certain=certain)
        optimizer.step()
        rwalk.after_step()
        if step in moves:
            with torch.no_grad():
                model["p"].add_(64.0)
    return rwalk


@pytest.mark.parametrize("moves", [(3,), (1, 2), (5,), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_else_moves_weights_is_no_part_of_the_walk(backend, moves, caplog):
    caplog.set_level("INFO", logger="rwalk.core.walk")
    around, found = (moved_between(backend, certain, moves) for certain in (False, True))
    assert torch.equal(found.importances("fisher")["p"], around.importances("fisher")["p"])
    states = [rwalk.state_dict()["parameters"]["p"] for rwalk in (around, found)]
    assert states[0]["loss_change"].item() == sum(4.0**-step for step in range(6))
    assert states[1]["loss_change"].item() == sum(4.0**-step for step in range(moves[0] + 1, 6))
    assert caplog.text.count("weights were moved between two optimizer steps") == 1


@pytest.mark.parametrize("delta_t", [101, None])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_long_window_is_not_lost_to_it(backend, delta_t):
    around, found = (moved_between(backend, certain, (3, 5), delta_t=delta_t) for certain in (False, True))
    assert_same_state(found.state_dict(), around.state_dict())


@pytest.mark.parametrize("backend", BACKENDS)
def test_after_detaching_the_walk_ends_where_it_was_left(backend):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, RWalkConfig(backend=backend))
    for _ in range(3):
        model(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
    left = copy.deepcopy(rwalk)
    rwalk.detach()
    model.weight.data.add_(1.0)
    left.model.weight.data.add_(0.0)
    assert_same_state(rwalk.state_dict(), left.state_dict())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_layer_that_grows_between_two_steps_keeps_what_was_not_settled(backend):
    states = []
    for looks in (False, True):
        torch.manual_seed(0)
        model = nn.ParameterDict({"p": nn.Parameter(torch.ones(2))})
        rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), RWalkConfig(backend=backend), attach=False)
        for step in range(5):
            if step == 3:
                grown = nn.Parameter(torch.cat([model["p"].detach(), torch.full((2,), 5.0)]))
                optimizer = torch.optim.SGD([grown], lr=0.1)
                model["p"] = grown
                if looks:  # settles while the layer is as it was
                    rwalk.state_dict()
                rwalk.follow(model, optimizer)
            model["p"].grad = torch.linspace(-1.0, 1.0, len(model["p"])) * (step + 1)
            rwalk.before_step(certain=True)
            rwalk.optimizer.step()
            rwalk.after_step()
        states.append(rwalk.state_dict())
    assert_same_state(*states)
    assert bool(states[0]["parameters"]["p"]["loss_change"].ne(0).all())


class Following:
    """One parameter of one element, stepped by hand with SGD."""

    def __init__(self, backend, certain=True, **settings):
        self.model = nn.ParameterDict({"p": nn.Parameter(torch.tensor([1.0], dtype=torch.float64))})
        self.optimizer, self.certain = torch.optim.SGD(self.model.parameters(), lr=0.1), certain
        config = RWalkConfig(backend=backend, **{"ewc_alpha": 0.5, **settings})
        self.rwalk = RWalk(self.model, self.optimizer, config, attach=False)

    def begin(self, gradient=1.0):
        self.model["p"].grad = torch.tensor([gradient], dtype=torch.float64)
        self.rwalk.before_step(certain=self.certain)

    def step(self, gradient=1.0):
        self.begin(gradient)
        self.optimizer.step()
        self.rwalk.after_step()

    def kept(self, quantity):
        return self.rwalk.state_dict()["parameters"]["p"][quantity].item()


def put(parameter, value):
    with torch.no_grad():
        parameter.fill_(value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_that_an_abandoned_step_has_moved_are_no_part_of_the_walk(backend):
    run = Following(backend)
    for _ in range(3):
        run.step()
    run.begin(3.0)
    put(run.model["p"], -5.0)
    run.rwalk.abandon_step()
    run.step()
    assert run.kept("loss_change") == pytest.approx(0.1)  # of the step after it
    assert run.kept("fisher") == pytest.approx(1.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_is_abandoned_where_gradients_are_on(backend):
    run = Following(backend)
    run.step()
    run.begin(3.0)
    put(run.model["p"], -5.0)
    run.rwalk.follow()
    run.step()
    assert run.kept("loss_change") == pytest.approx(0.1)
    assert not any(flat.requires_grad for flat in run.rwalk._tracker.buckets[0].flat.values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_parameter_put_in_anothers_place_is_no_part_of_the_walk(backend):
    run = Following(backend)
    for _ in range(3):
        run.step()
    run.model["p"] = run.optimizer.param_groups[0]["params"][0] = nn.Parameter(torch.tensor([-5.0]).double())
    run.step()
    assert run.kept("loss_change") == pytest.approx(0.1)
    assert run.kept("window_start") == -5.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_averaged_weights_that_are_there_for_a_while_are_no_part_of_the_walk(backend):
    """As libraries do it, through .data, which torch does not count; elements' bits tell."""
    run = Following(backend)
    for _ in range(3):
        run.step()
    own = run.model["p"].data.clone()
    run.model["p"].data.copy_(torch.tensor([-5.0]))
    run.rwalk.state_dict()
    run.model["p"].data.copy_(own)
    run.step()
    assert abs(run.kept("loss_change")) <= 0.2


@pytest.mark.parametrize("backend", BACKENDS)
def test_after_a_task_in_which_weights_were_moved_steps_are_certain_again(backend):
    run, around = Following(backend), Following(backend, certain=False)
    for each in (run, around):
        for _ in range(3):
            each.step()
        put(each.model["p"], 2.0)
        each.rwalk.consolidate()
    run.step()
    around.step()
    assert "before" not in run.rwalk._tracker.buckets[0].flat
    assert "before" in around.rwalk._tracker.buckets[0].flat


@pytest.mark.parametrize("certain", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_window_dropped_within_a_step_is_dropped(backend, certain):
    run = Following(backend, certain)
    for _ in range(3):
        run.step()
    run.begin()
    run.rwalk.drop_window()
    run.optimizer.step()
    run.rwalk.after_step()
    assert run.rwalk.window_steps == 1
    assert run.kept("loss_change") == pytest.approx(0.1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda rwalk: pickle.loads(pickle.dumps(rwalk))])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_copy_made_within_a_step_does_not_have_it(backend, copied):
    run = Following(backend)
    for gradient in (1.0, 2.0, 3.0):
        run.step(gradient)
    expected = {name: run.kept(name) for name in ("fisher", "loss_change")}
    for gradient in (5.0, 7.0):
        run.begin(gradient)
        found = copied(run.rwalk).state_dict()["parameters"]["p"]
        assert {name: found[name].item() for name in expected} == pytest.approx(expected)
        run.optimizer.step()
        run.rwalk.after_step()
        expected = {name: run.kept(name) for name in ("fisher", "loss_change")}


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_that_cannot_begin_leaves_no_more_than_roundings(backend, at):
    """Its gradient cannot be written to, which shows when the penalty is added to it, after other parameters' turn."""
    states = []
    for fails_at in (at, None):
        sizes = {"a": torch.float64, "b": torch.float32}
        model = nn.ParameterDict({name: nn.Parameter(torch.ones(2, dtype=dtype)) for name, dtype in sizes.items()})
        rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), RWalkConfig(backend=backend), attach=False)
        for step in range(-1, 6):
            if step == 0:
                rwalk.consolidate()
            if step == fails_at:
                model["a"].grad, model["b"].grad = torch.full((2,), 7.0).double(), torch.tensor(7.0).expand(2)
                with pytest.raises(RuntimeError):
                    rwalk.before_step(certain=True)
            for parameter in model.values():
                parameter.grad = torch.full_like(parameter, 1.0 + step / 8)
            rwalk.before_step(certain=True)
            rwalk.optimizer.step()
            rwalk.after_step()
        states.append(rwalk.state_dict())
    assert states[0]["steps"] == states[1]["steps"]
    for name, values in states[1]["parameters"].items():
        for quantity, value in values.items():
            torch.testing.assert_close(states[0]["parameters"][name][quantity], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("certain", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_where_nothing_moved_each_dtype_has_its_own_least_damping(backend, certain):
    model = nn.ParameterDict({"a": nn.Parameter(torch.ones(1).double()), "b": nn.Parameter(torch.ones(1))})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    settings = {"damping_scale": "relative", "fisher_in_score": "window_start", "delta_t": 2}
    rwalk = RWalk(model, optimizer, RWalkConfig(backend=backend, **settings), attach=False)
    for step in range(2):
        model["a"].grad = torch.ones(1).double()
        model["b"].grad = torch.ones(1) if step == 0 else None
        rwalk.before_step(certain=certain)
        optimizer.step()
        rwalk.after_step()
    assert rwalk.importances("score")["a"].item() > 1e200
    assert 0 < rwalk.importances("score")["b"].item() < 1e38


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_window_as_long_as_a_task_keeps_its_digits(backend):
    random = torch.Generator().manual_seed(0)
    model = nn.ParameterDict({"p": nn.Parameter(torch.ones(64))})
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    rwalk, expected = RWalk(model, optimizer, RWalkConfig(delta_t=None, backend=backend)), torch.zeros(64).double()
    for _ in range(1500):
        model["p"].grad = 0.1 + torch.randn(64, generator=random)
        before = model["p"].detach().double()
        optimizer.step()
        expected += model["p"].grad.double() * (before - model["p"].detach().double())
    found = rwalk.state_dict()["parameters"]["p"]["loss_change"].double()
    assert float((found / expected - 1).abs().max()) < 3e-6
