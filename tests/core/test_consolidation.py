"""The end of a task: what is counted, what is warned of, what is never NaN."""

import pytest
import torch

from reference.problems import assert_same, assert_same_state, tanh_net, train, weights
from rwalk import RWalk, RWalkConfig, RWalkError
from rwalk.core import consolidate


def sgd_walk(config=None, lr=0.1, **arguments):
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return model, optimizer, RWalk(model, optimizer, config, **arguments)


def test_consolidating_without_a_step_warns_and_changes_nothing(caplog):
    model, optimizer, rwalk = sgd_walk()
    for ready in (False, True):
        if ready:
            train(model, optimizer, task=0, steps=13)
            rwalk.consolidate()
        before = rwalk.state_dict()
        caplog.clear()
        rwalk.consolidate()
        assert "nothing changes" in caplog.text
        assert_same_state(rwalk.state_dict(), before)


def test_consolidating_after_steps_without_any_gradient_warns(caplog):
    _, optimizer, rwalk = sgd_walk()
    optimizer.step()
    rwalk.consolidate()
    assert "nothing changes" in caplog.text
    assert rwalk.tasks == 0
    assert rwalk.penalty().item() == 0.0


@pytest.mark.parametrize("scaling", ["max", "minmax", "none"])
@pytest.mark.parametrize("damping_scale", ["absolute", "relative"])
@pytest.mark.parametrize("still", ["no movement", "no gradient"])
def test_a_task_that_teaches_nothing_gives_finite_penalties_and_a_warning(still, damping_scale, scaling, caplog):
    config = RWalkConfig(damping_scale=damping_scale, scaling=scaling)
    model, optimizer, rwalk = sgd_walk(config, lr=0.0 if still == "no movement" else 0.1)
    if still == "no movement":
        train(model, optimizer, task=0, steps=12)
    else:
        for _ in range(12):
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
    rwalk.consolidate()
    assert "of every weight is zero" in caplog.text
    assert rwalk.tasks == 1
    optimizer.param_groups[0]["lr"] = 0.1
    train(model, optimizer, task=1, steps=12)
    assert torch.isfinite(rwalk.penalty())
    assert all(bool(torch.isfinite(value).all()) for value in [*rwalk.importances().values(), *weights(model).values()])


def test_a_gradient_that_is_not_finite_is_named_and_past_importances_stay(caplog):
    model, optimizer, rwalk = sgd_walk()
    train(model, optimizer, task=0, steps=12)
    rwalk.consolidate()
    past = rwalk.importances()
    model[2].bias.grad = torch.tensor([1.0, float("nan")]).double()
    optimizer.step()
    assert "the gradient of '2.bias' is not finite" in caplog.text
    assert (rwalk.steps, rwalk.skipped) == (12, 1)
    rwalk.consolidate()
    assert "none since the last one: nothing changes" in caplog.text
    assert rwalk.tasks == 1
    assert_same(rwalk.importances(), past)


def test_a_task_shorter_than_a_window_is_scored_if_flushed_and_not_if_dropped(caplog):
    for unfinished in ("flush", "drop"):
        model, optimizer, rwalk = sgd_walk(RWalkConfig(unfinished=unfinished, delta_t=50))
        train(model, optimizer, task=0, steps=7)
        assert all(bool((score == 0).all()) for score in rwalk.importances("score").values())
        rwalk.consolidate()
        scored = any(bool((score != 0).any()) for score in rwalk.importances("score").values())
        assert scored == (unfinished == "flush")
    assert "score of every weight is zero" in caplog.text


def test_counters_count_steps_tasks_and_windows():
    model, optimizer, rwalk = sgd_walk(RWalkConfig(delta_t=5))
    train(model, optimizer, task=0, steps=12)
    assert (rwalk.steps, rwalk.task_steps, rwalk.window_steps, rwalk.tasks) == (12, 12, 2, 0)
    rwalk.consolidate()
    assert (rwalk.steps, rwalk.task_steps, rwalk.window_steps, rwalk.tasks) == (12, 0, 0, 1)


def test_a_window_that_ends_where_it_began_has_a_finite_relative_score():
    model = tanh_net(dtype=torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25)
    rwalk = RWalk(model, optimizer, RWalkConfig(damping_scale="relative", delta_t=2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
    for window in range(3):
        for slope, lr in ((8.0, 0.25), (2.0, -1.0)):  # there and back, with a net loss change
            optimizer.param_groups[0]["lr"] = lr
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, slope)
            optimizer.step()
        assert all(bool((parameter == 0.5).all()) for parameter in model.parameters()), window
    rwalk.consolidate()
    assert all(bool(torch.isfinite(score).all()) for score in rwalk.importances("score").values())
    assert all(bool((value == 2.0).all()) for value in rwalk.importances().values())


@pytest.mark.parametrize("source", ["step", "loader", "samples"])
def test_a_task_whose_end_is_refused_ends_as_if_it_had_not_been_asked_for(source):
    """Weights that are not finite are put right, and it is called again: nothing has joined twice, no window closed."""
    states = []
    for spoils in (False, True):
        model, optimizer, rwalk = sgd_walk(RWalkConfig(fisher_source=source, ewc_alpha=0.5))
        rng = torch.Generator().manual_seed(0)
        data = [] if source == "step" else [[torch.randn(8, 3, generator=rng).double() for _ in range(3)]]
        # Of the first layer's outputs, which are finite whatever the last one is.
        asked = {"forward": lambda batch, model=model: model[0](batch)} if data else {}
        for steps in (10, 13):
            train(model, optimizer, task=0, steps=steps)
            if spoils:
                before, kept = rwalk.state_dict(), model[2].bias.detach().clone()
                model[2].bias.data[0] = float("nan")
                with pytest.raises(RWalkError, match="not finite"):
                    rwalk.consolidate(*data, **asked)
                with pytest.raises(RWalkError, match="not finite"):
                    rwalk.protect([torch.zeros(2, 3).double()])
                assert rwalk.window_steps == before["window_steps"]
                model[2].bias.data.copy_(kept)
                assert_same_state(rwalk.state_dict(), before)
            rwalk.consolidate(*data, **asked)
        states.append(rwalk.state_dict())
    assert_same_state(*states)


@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError])
def test_half_a_tasks_end_is_nothing_to_go_on_from(error, monkeypatch):
    model, optimizer, rwalk = sgd_walk()
    for task in range(2):
        train(model, optimizer, task, steps=12)
        if not task:
            rwalk.consolidate()
    saved = rwalk.state_dict()

    def interrupted(*_, **__):
        raise error

    monkeypatch.setattr(consolidate, "_build_importance", interrupted)
    with pytest.raises(error):
        rwalk.consolidate()
    monkeypatch.undo()
    for tried in (rwalk.consolidate, rwalk.state_dict, lambda: train(model, optimizer, task=1, steps=1)):
        with pytest.raises(RWalkError, match="the end of a task was interrupted"):
            tried()
    rwalk.load_state_dict(saved)
    rwalk.consolidate()
    assert rwalk.tasks == 2
    train(model, optimizer, task=1, steps=1)
