"""States go from one way of keeping them to another: float32 and bfloat16, windows of one step and of several."""

import pytest
import torch
from torch import nn

from core.kernels import needs_compiler
from reference.problems import assert_same_state, tanh_net, train, weights
from rwalk import RWalk, RWalkConfig, StateError
from rwalk.core.files import load_state, save_state

BACKENDS = ["eager", pytest.param("fused", marks=needs_compiler)]
CONFIG = RWalkConfig(ewc_lambda=0.5, ewc_alpha=0.3, delta_t=5, damping=1e-3)
COMPACT = CONFIG.replace(state_dtype="bfloat16")
EVERY_STEP = CONFIG.replace(delta_t=1)


def start(config, like=None):
    model = tanh_net(dtype=torch.float32)
    if like is not None:
        model.load_state_dict(like.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, optimizer, RWalk(model, optimizer, config)


def learned(config, steps=8):
    """One task, and some steps of the next."""
    model, optimizer, rwalk = start(config)
    train(model, optimizer, 0, 12, torch.float32)
    rwalk.consolidate()
    train(model, optimizer, 1, steps, torch.float32)
    return model, optimizer, rwalk


def resumed(config, model, state):
    other, optimizer, rwalk = start(config, model)
    rwalk.load_state_dict(state)
    return other, optimizer, rwalk


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("config", [COMPACT, COMPACT.replace(delta_t=1)], ids=["windows", "steps"])
def test_compact_state_on_disk_is_the_same_bit_for_bit(config, backend, tmp_path):
    config = config.replace(backend=backend)
    model, optimizer, rwalk = learned(config)
    rwalk.save(tmp_path / "state")
    assert load_state(tmp_path / "state")["parameters"]["0.weight"]["fisher"].dtype is torch.bfloat16
    other, its_optimizer, _ = start(config, model)
    RWalk.release(its_optimizer)
    again = RWalk.load(tmp_path / "state", other, its_optimizer)
    assert again.config == config
    assert_same_state(again.state_dict(), rwalk.state_dict())
    for each, its in ((model, optimizer), (other, its_optimizer)):
        train(each, its, 2, 13, torch.float32)
    for each in (rwalk, again):
        each.consolidate()
    assert_same_state(again.state_dict(), rwalk.state_dict())
    assert all(torch.equal(value, weights(model)[name]) for name, value in weights(other).items())


def test_float32_to_bfloat16_and_back_within_a_window():
    model, _, rwalk = learned(CONFIG)
    assert rwalk.window_steps == 3
    state = rwalk.state_dict()
    _, _, compact = resumed(COMPACT, model, state)
    between = compact.state_dict()
    _, _, back = resumed(CONFIG, model, between)
    for name, before in state["parameters"].items():
        halved, after = between["parameters"][name], back.state_dict()["parameters"][name]
        assert set(halved) == set(before) - {"window_start"} | {"displacement"}
        assert set(after) == set(before)
        moved = before["window_start"] - weights(model)[name]
        assert moved.abs().min() > 0
        torch.testing.assert_close(halved["displacement"], moved.to(torch.bfloat16), rtol=0, atol=0)
        for quantity in set(before) - {"updates", "window_start"}:
            torch.testing.assert_close(after[quantity], before[quantity], rtol=2**-8, atol=0)
        restored = after["window_start"] - weights(model)[name]
        torch.testing.assert_close(restored, moved, rtol=2**-8, atol=2**-22)
        assert torch.equal(after["anchor"], before["anchor"])


@pytest.mark.parametrize(("one", "other"), [(CONFIG, COMPACT), (COMPACT, CONFIG)], ids=["to compact", "from compact"])
def test_a_window_goes_on_in_the_other_dtype(one, other):
    model, optimizer, rwalk = learned(one)
    changed, its_optimizer, converted = resumed(other, model, rwalk.state_dict())
    before = rwalk.importances("score")
    for each, its in ((model, optimizer), (changed, its_optimizer)):
        train(each, its, 2, 2, torch.float32)
    assert rwalk.window_steps == converted.window_steps == 0
    for name, score in rwalk.importances("score").items():
        gained = score - before[name]
        torch.testing.assert_close(
            converted.importances("score")[name], score, rtol=0.02, atol=0.02 * gained.abs().max().item()
        )


def test_a_state_of_single_steps_starts_windows_anew():
    model, _, rwalk = learned(EVERY_STEP)
    state = rwalk.state_dict()
    assert not {"loss_change", "window_start"} & set(state["parameters"]["0.weight"])
    for config in (CONFIG, COMPACT):
        other, optimizer, windows = resumed(config, model, state)
        plain, its_optimizer, single = resumed(EVERY_STEP.replace(state_dtype=config.state_dtype), model, state)
        train(other, optimizer, 2, 5, torch.float32)
        train(plain, its_optimizer, 2, 5, torch.float32)
        assert windows.window_steps == 0
        for name, score in windows.importances("score").items():
            assert bool((score != rwalk.importances("score")[name]).any())
            assert torch.isfinite(score).all()
            torch.testing.assert_close(
                windows.importances("fisher")[name], single.importances("fisher")[name], rtol=0, atol=0
            )


def test_an_open_window_is_dropped_where_every_step_is_one_and_stays_so():
    model, _, rwalk = learned(CONFIG)
    _, _, single = resumed(EVERY_STEP, model, rwalk.state_dict())
    assert single.window_steps == 0
    other, optimizer, back = resumed(CONFIG, model, single.state_dict())
    fresh, its_optimizer, expected = resumed(CONFIG, model, rwalk.state_dict())
    expected.drop_window()
    for each, its in ((other, optimizer), (fresh, its_optimizer)):
        train(each, its, 2, 5, torch.float32)
    assert_same_state(back.state_dict(), expected.state_dict())


APART = CONFIG.replace(rectify="task")


@pytest.mark.parametrize(("saved", "loaded"), [(APART, CONFIG), (CONFIG, APART)])
@pytest.mark.parametrize("ended", [False, True])
def test_a_score_goes_to_where_the_new_config_looks_for_it(saved, loaded, ended):
    """A task's is kept apart from that of the tasks before, or not."""
    model, optimizer, rwalk = start(saved)
    train(model, optimizer, 0, 15, torch.float32)
    if ended:
        rwalk.consolidate()
    state = rwalk.state_dict()
    other, its_optimizer, again = resumed(loaded, model, state)
    assert {n: v.tolist() for n, v in again.importances("score").items()} == {
        n: v.tolist() for n, v in rwalk.importances("score").items()
    }
    if ended:
        train(model, optimizer, 1, 10, torch.float32)
        train(other, its_optimizer, 1, 10, torch.float32)
    for each in (rwalk, again):
        each.consolidate()
    for name, value in rwalk.importances("score").items():  # where neither clamps, both have the same average
        positive = (value > 0) & (again.importances("score")[name] > 0) if ended else value > 0
        torch.testing.assert_close(again.importances("score")[name][positive].clamp(min=0.0), value[positive])


def test_a_score_that_cannot_be_told_from_an_old_one_is_refused():
    model, _, rwalk = learned(CONFIG)
    with pytest.raises(
        StateError, match=r"middle of a task.*rectify='task' with score_average='mean'.*consolidate\(\)"
    ):
        resumed(APART, model, rwalk.state_dict())
    model, _, rwalk = learned(APART)
    _, _, again = resumed(CONFIG, model, rwalk.state_dict())
    assert again.tasks == 1


def test_a_window_that_began_without_its_fisher_takes_the_one_that_is_there():
    model, _, rwalk = learned(CONFIG)
    state = rwalk.state_dict()
    assert state["window_steps"] == 3
    _, _, again = resumed(CONFIG.replace(fisher_in_score="window_start"), model, state)
    for name, values in again.state_dict()["parameters"].items():
        assert bool(values["window_fisher"].any())
        assert torch.equal(values["window_fisher"], state["parameters"][name]["fisher"])


def test_a_state_of_what_the_patterns_leave_out_is_refused_with_that_reason():
    model, _, rwalk = learned(CONFIG)
    with pytest.raises(StateError, match=r"2 parameter\(s\) that include and exclude leave out here, first '2.bias'"):
        resumed(CONFIG.replace(exclude=("2.*",)), model, rwalk.state_dict())


def test_a_state_of_a_version_that_had_other_settings_is_read(tmp_path):
    model, optimizer, rwalk = learned(CONFIG)
    rwalk.detach()
    state = rwalk.state_dict()
    state["config"]["offload"] = "cpu"
    for values in state["parameters"].values():
        del values["last_task"]
    save_state(state, tmp_path / "old.safetensors")
    again = RWalk.load(tmp_path / "old.safetensors", model, optimizer)
    assert_same_state(again.state_dict(), rwalk.state_dict())


def test_compact_state_of_float64_parameters_stays_in_float64():
    model = nn.ParameterDict({"p": nn.Parameter(torch.ones(3)), "q": nn.Parameter(torch.ones(2, dtype=torch.float64))})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, COMPACT)
    for parameter in model.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    dtypes = {name: values["fisher"].dtype for name, values in rwalk.state_dict()["parameters"].items()}
    assert dtypes == {"p": torch.bfloat16, "q": torch.float64}
