"""Steps that are certain are accounted for in one pass, and come to the same, bit for bit, as others."""

import copy
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
