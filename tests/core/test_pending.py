"""The pending step: nothing of a step is in the state until the next gradient comes, or someone asks for the state."""

import copy
import math
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
from rwalk import RWalk, RWalkConfig, RWalkError

BACKENDS = ["eager", pytest.param("fused", marks=needs_compiler)]
both = pytest.mark.parametrize("backend", BACKENDS)


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """Random histories make for many warnings of idle tasks."""
    caplog.set_level("ERROR", logger="rwalk")


def walked(history, config, *, looks=lambda rwalk: rwalk):
    """The state after every task. ``looks`` is called after each step, and gives back what to go on with."""
    model = history.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=history.lr, momentum=0.9)
    rwalk, states = RWalk(model, optimizer, config, attach=False), []
    for task in history.tasks:
        for step in task:
            history.load(model, step)
            rwalk.before_step()
            optimizer.step()
            rwalk.after_step()
            rwalk = looks(rwalk)
        rwalk.consolidate()
        states.append(rwalk.state_dict())
    return states


@both
@given(data=st.data())
def test_looking_changes_no_bit(backend, data):
    config, history = data.draw(configs(backend=backend)), data.draw(histories(max_scale=0))
    dice = random.Random(data.draw(st.integers(0, 1000)))

    def look(rwalk):
        looks = (
            RWalk.state_dict,
            RWalk.importances,
            lambda walk: walk.importances("score"),
            RWalk.penalty,
            RWalk.settle,
        )
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
        return walked(history, config, **how)
    except Exception as error:
        return str(error)


def assert_same_outcome(found, expected):
    if isinstance(expected, str):
        assert found == expected
    else:
        for mine, other in zip(found, expected, strict=True):
            assert_same_state(mine, other)


class Fails(torch.optim.SGD):
    fails = False

    def step(self, closure=None):
        if self.fails:
            raise OSError("interrupted")
        return super().step(closure)


class Run:
    """A network under random gradients, and what goes wrong in a step of it."""

    OPTIMIZERS = (
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.05, fused=True),
        lambda p: torch.optim.Adam(p, lr=0.01),
        lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
        lambda p: Fails(p, lr=0.05),
    )

    def __init__(self, kind, config, seed):
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
        self.optimizer = self.OPTIMIZERS[kind](self.model.parameters())
        self.rwalk = RWalk(self.model, self.optimizer, config)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, enabled=kind == 3)

    def gradients(self, random):
        self.scaler.scale(torch.ones(()))  # makes the scaler's own state
        for parameter in self.model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=random).mul_(self.scaler.get_scale())

    def take(self):
        self.scaler.step(self.optimizer)
        self.scaler.update(2.0**8 if self.scaler.is_enabled() else None)

    def step(self, random):
        self.gradients(random)
        self.take()

    def broken_step(self, dice, random):
        """A step that does not count; weights and the optimizer's state are put back where it has moved them."""
        self.gradients(random)
        if isinstance(self.optimizer, Fails) and dice.random() < 0.7:
            self.optimizer.fails = True
            with pytest.raises(OSError, match="interrupted"):
                self.optimizer.step()
            self.optimizer.fails = False
            return
        kept = [p.detach().clone() for p in self.model.parameters()], copy.deepcopy(self.optimizer.state_dict())
        parameter = dice.choice(list(self.model.parameters()))
        values = [math.inf, -math.inf, math.nan]
        values += (
            [] if self.scaler.is_enabled() else [3e38, -2e19]
        )  # whose square is none; a scaler takes them as they are
        parameter.grad.view(-1)[dice.randrange(parameter.numel())] = dice.choice(values)
        if dice.random() < 0.5:
            self.scaler.unscale_(self.optimizer)
        self.take()
        with torch.no_grad():
            for weight, value in zip(self.model.parameters(), kept[0], strict=True):
                weight.copy_(value)
        self.optimizer.load_state_dict(kept[1])


@both
@pytest.mark.parametrize("kind", range(len(Run.OPTIMIZERS)))
def test_a_step_that_does_not_count_leaves_no_trace(backend, kind):
    for trial in range(100):
        dice = random.Random(1000 * kind + trial)
        config = RWalkConfig(
            ewc_lambda=dice.choice([0.0, 0.5]),
            delta_t=dice.choice([1, 3, 10, None]),
            penalty=dice.choice(["gradient", "proximal"]),
            state_dtype=dice.choice(["float32", "bfloat16"]),
            damping_scale=dice.choice(["absolute", "relative"]),
            fisher_in_score=dice.choice(["window_end", "window_start"]),
            backend=backend,
        )
        clean, shaken = Run(kind, config, trial), Run(kind, config, trial)
        mine, its = torch.Generator().manual_seed(trial), torch.Generator().manual_seed(trial)
        astray, broken = torch.Generator().manual_seed(trial + 1), 0
        for _ in range(2):
            for _ in range(dice.randrange(1, 9)):
                if dice.random() < 0.3:
                    shaken.broken_step(dice, astray)
                    broken += 1
                clean.step(mine)
                shaken.step(its)
            for run in (clean, shaken):
                run.rwalk.consolidate()
        assert_same_state(shaken.rwalk.state_dict(), clean.rwalk.state_dict())
        assert shaken.rwalk.steps == clean.rwalk.steps
        assert shaken.rwalk.skipped <= broken  # a scaler that has unscaled takes no step at all
        assert clean.rwalk.skipped == 0


@both
def test_it_is_told_once_and_counted(backend, caplog):
    caplog.set_level("WARNING", logger="rwalk")
    run = Following(backend)
    for value in (1.0, math.nan, 2.0, math.inf, 2e19, 1.0):
        weight = run.model["p"].detach().clone()
        run.step(value, dtype=torch.float32)
        run.model["p"].data.copy_(weight)
    assert caplog.text.count("leaves no trace") == 1
    assert "the gradient of 'p' is not finite" in caplog.text
    assert (run.rwalk.steps, run.rwalk.skipped) == (3, 3)


@both
def test_a_gradient_that_is_not_finite_can_stop_training(backend):
    run = Following(backend, nonfinite="raise")
    run.step(1.0)
    before = run.rwalk.state_dict()
    with pytest.raises(RWalkError, match=r"the gradient of 'p' is not finite.*nonfinite='skip'"):
        run.begin(math.nan)
    assert_same_state(run.rwalk.state_dict(), before)
    run.step(1.0)
    assert (run.rwalk.steps, run.rwalk.skipped) == (2, 1)


@both
def test_a_gradient_counts_as_finite_up_to_the_root_of_the_largest_number(backend):
    for value, counts in ((1.8e19, True), (1.85e19, False)):
        run = Following(backend, dtype=torch.float32)
        run.step(value, dtype=torch.float32)
        assert run.rwalk.steps == int(counts)
        if counts:
            assert math.isfinite(run.kept("fisher"))


class Following:
    """One parameter of one element, stepped by hand with SGD."""

    def __init__(self, backend, dtype=torch.float64, **settings):
        self.model = nn.ParameterDict({"p": nn.Parameter(torch.tensor([1.0], dtype=dtype))})
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        config = RWalkConfig(backend=backend, **{"ewc_alpha": 0.5, **settings})
        self.rwalk = RWalk(self.model, self.optimizer, config, attach=False)

    def begin(self, gradient=1.0, dtype=None):
        parameter = self.model["p"]
        if dtype is not None and parameter.dtype is not dtype:
            parameter.data = parameter.data.to(dtype)
        parameter.grad = torch.tensor([gradient], dtype=parameter.dtype)
        self.rwalk.before_step()

    def step(self, gradient=1.0, dtype=None):
        self.begin(gradient, dtype)
        self.optimizer.step()
        self.rwalk.after_step()

    def kept(self, quantity):
        return self.rwalk.state_dict()["parameters"]["p"][quantity].item()


@both
def test_a_step_enters_when_the_next_gradient_comes(backend):
    run = Following(backend)
    run.step(2.0)
    (bucket,) = run.rwalk._tracker.buckets
    assert run.rwalk.steps == 1
    assert "fisher" not in bucket.flat or bucket.flat["fisher"].item() == 0.0
    assert (bucket.flat["gradient"].item(), bucket.flat["before"].item()) == (2.0, 1.0)
    run.begin(3.0)
    assert bucket.flat["fisher"].item() == 4.0
    assert bucket.flat["loss_change"].item() == pytest.approx(2.0 * 0.2)


@both
def test_two_beginnings_or_two_ends_are_refused(backend):
    run = Following(backend)
    run.begin()
    with pytest.raises(RWalkError, match="called twice"):
        run.begin()
    run.rwalk.after_step()
    with pytest.raises(RWalkError, match=r"after_step\(\) without before_step"):
        run.rwalk.after_step()


@both
def test_a_window_dropped_within_a_step_is_dropped(backend):
    run = Following(backend)
    for _ in range(3):
        run.step()
    run.begin()
    run.rwalk.drop_window()
    run.optimizer.step()
    run.rwalk.after_step()
    assert run.rwalk.window_steps == 1
    assert run.kept("loss_change") == pytest.approx(0.1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda rwalk: pickle.loads(pickle.dumps(rwalk))])
@both
def test_a_copy_made_within_a_step_does_not_have_it(backend, copied):
    run = Following(backend)
    for gradient in (1.0, 2.0, 3.0):
        run.step(gradient)
    for gradient in (5.0, 7.0):
        expected = {name: run.kept(name) for name in ("fisher", "loss_change")}
        run.begin(gradient)
        found = copied(run.rwalk)
        run.optimizer.step()
        run.rwalk.after_step()
        with pytest.raises(RWalkError, match="called between"):
            found.state_dict()
        found.after_step(skipped=True)
        values = found.state_dict()["parameters"]["p"]
        assert {name: values[name].item() for name in expected} == expected


@both
def test_a_copy_made_within_a_step_may_be_attached(backend):
    run = Following(backend)
    run.step(1.0)
    run.begin(5.0)
    found = copy.deepcopy(run.rwalk)
    found.attach()
    found.model["p"].grad = torch.ones_like(found.model["p"])
    found.optimizer.step()
    assert (found.steps, found.skipped) == (2, 1)


@both
def test_weights_are_not_held_within_a_step(backend):
    run = Following(backend)
    run.step(1.0)
    run.begin(2.0)
    with pytest.raises(RWalkError, match=r"hold_weights\(\) called between before_step\(\) and after_step\(\)"):
        run.rwalk.hold_weights()
    run.optimizer.step()
    run.rwalk.after_step()
    assert run.kept("loss_change") != 0.0


@pytest.mark.parametrize("at", [1, 2, 3])
@both
def test_a_step_that_cannot_begin_leaves_no_trace(backend, at):
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
                    rwalk.before_step()
            for parameter in model.values():
                parameter.grad = torch.full_like(parameter, 1.0 + step / 8)
            rwalk.before_step()
            rwalk.optimizer.step()
            rwalk.after_step()
        states.append(rwalk.state_dict())
    assert_same_state(*states)


@both
def test_a_step_in_mid_window_takes_few_calls(backend):
    """A reader, and the interpreter, has little to go through: 45 calls in 7 files at most in compiled code."""
    import sys

    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    rwalk, calls = RWalk(model, optimizer, RWalkConfig(backend=backend)), []
    for step in range(35):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        if step == 34:
            sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_filename) if event == "call" else None)
        optimizer.step()
        sys.setprofile(None)
        if step == 19:
            rwalk.consolidate()
    mine = [file for file in calls if "/rwalk/" in file]
    assert len(mine) <= {"fused": 45, "eager": 100}[backend]
    assert len(set(mine)) <= {"fused": 7, "eager": 9}[backend]


@both
def test_a_step_in_which_nothing_has_a_gradient_is_none(backend):
    def start():
        model = nn.Linear(3, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, optimizer, RWalk(model, optimizer, RWalkConfig(delta_t=2, window_phase="run", backend=backend))

    def step(gradient):
        for parameter in model.parameters():
            parameter.grad = None if gradient is None else torch.full_like(parameter, gradient)
        optimizer.step()

    model, optimizer, rwalk = start()
    step(None)
    assert rwalk.steps == 0
    start()[2].load_state_dict(rwalk.state_dict())  # as of a new one
    step(0.5)
    step(None)
    between = rwalk.state_dict()
    step(None)
    assert rwalk.steps == 1
    assert_same_state(rwalk.state_dict(), between)
    step(0.25)
    assert rwalk.steps == 2
    assert all(bool((score > 0).all()) for score in rwalk.importances("score").values())  # two steps filled the window
