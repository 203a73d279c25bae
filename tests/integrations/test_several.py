"""RWalkGroup by itself: states, successors and refusals."""

import copy

import pytest
import torch
from torch import nn

from reference.problems import assert_same, assert_same_state, batches, tanh_net
from rwalk import RWalkConfig, RWalkError, StateError
from rwalk.core import consolidate as consolidating
from rwalk.integrations.several import RWalkGroup

CONFIG = RWalkConfig(ewc_lambda=0.5, delta_t=3)


def model_and_optimizers():
    model = tanh_net()
    return model, [torch.optim.SGD(model[0].parameters(), lr=0.1), torch.optim.Adam(model[2].parameters(), lr=0.01)]


def train(model, optimizers, task, steps):
    for x, y in batches(task, steps):
        model.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        for optimizer in optimizers:
            optimizer.step()


def learned():
    model, optimizers = model_and_optimizers()
    group = RWalkGroup(CONFIG)
    group.attach(model, optimizers)
    train(model, optimizers, task=0, steps=10)
    group.consolidate()
    train(model, optimizers, task=1, steps=4)
    return model, optimizers, group


def test_a_group_goes_on_from_its_state_with_the_saved_settings():
    model, optimizers, group = learned()
    twin, others = model_and_optimizers()
    twin.load_state_dict(model.state_dict())
    for optimizer, other in zip(optimizers, others, strict=True):
        other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed = RWalkGroup()
    resumed.load_state_dict(group.state_dict())
    assert resumed.waits
    assert_same_state(resumed.state_dict()["optimizers"][0], group.rwalks[0].state_dict())
    resumed.attach(twin, others)
    assert not resumed.waits
    assert resumed.config == CONFIG
    train(model, optimizers, task=1, steps=5)
    train(twin, others, task=1, steps=5)
    for index in (0, 1):
        assert_same_state(resumed.rwalks[index].state_dict(), group.rwalks[index].state_dict())


def test_states_of_single_cores_go_to_the_optimizers_that_hold_their_parameters():
    model, optimizers, group = learned()
    states = group.state_dict()["optimizers"]
    fresh = RWalkGroup()
    fresh.start_from([states[1], states[0]])
    again = RWalkGroup()
    again.load_state_dict(fresh.state_dict())  # as Lightning's checkpoints carry it before training has started
    group.detach()
    again.attach(model, optimizers)
    assert again.config == CONFIG
    for index in (0, 1):
        assert_same_state(again.rwalks[index].state_dict(), states[index])


def test_an_optimizer_without_a_state_starts_anew():
    model, optimizers, group = learned()
    group.detach()
    fresh = RWalkGroup()
    fresh.start_from([group.rwalks[1].state_dict()])
    fresh.attach(model, optimizers)
    assert [rwalk.tasks for rwalk in fresh.rwalks.values()] == [0, 1]


def of_all():
    model, _ = model_and_optimizers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    group = RWalkGroup(CONFIG)
    group.attach(model, [optimizer])
    train(model, [optimizer], task=0, steps=3)
    return group.rwalks[0].state_dict()


def of_another_model():
    model = nn.ModuleDict({"elsewhere": nn.Linear(2, 1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    group = RWalkGroup(CONFIG)
    group.attach(model, [optimizer])
    model["elsewhere"](torch.ones(3, 2)).sum().backward()
    optimizer.step()
    return group.rwalks[0].state_dict()


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (lambda own: [of_all()], r"state 0 .* of several optimizers' .*0\.weight in optimizer 0 and .* in optimizer 1"),
        (
            lambda own: [own[0], of_another_model()],
            r"state 1 .*elsewhere\.bias.* no parameter that the optimizers \[0, 1\]",
        ),
        (lambda own: [own[1], own[0], own[1]], r"state 2 .* parameters of optimizer 1, and so is state 0"),
    ],
)
def test_a_state_that_fits_no_optimizer_or_several_is_refused(states, message):
    model, optimizers, group = learned()
    group.detach()
    fresh = RWalkGroup()
    fresh.start_from(states(group.state_dict()["optimizers"]))
    with pytest.raises(RWalkError, match=message):
        fresh.attach(model, optimizers)
    assert fresh.rwalks == {}
    assert fresh.waits


def test_states_of_different_settings_need_a_config_to_go_on_by():
    model, optimizers, group = learned()
    group.detach()
    first, second = (group.rwalks[index].state_dict() for index in (0, 1))
    second["config"] = CONFIG.replace(ewc_lambda=2.0).to_dict()
    with pytest.raises(RWalkError, match="saved with different settings: give the config"):
        RWalkGroup().start_from([first, second])
    fresh = RWalkGroup(CONFIG)
    fresh.start_from([first, second])
    fresh.attach(model, optimizers)
    assert [rwalk.config for rwalk in fresh.rwalks.values()] == [CONFIG, CONFIG]


def test_a_group_that_follows_nothing_yet_has_no_state():
    assert RWalkGroup().state_dict() == {}


def test_a_state_that_is_loaded_in_mid_training_is_gone_on_from_at_once():
    model, optimizers, group = learned()
    before = copy.deepcopy(group.state_dict())
    train(model, optimizers, task=1, steps=3)
    group.load_state_dict(before)
    assert not group.waits
    assert [rwalk.steps for rwalk in group.rwalks.values()] == [14, 14]
    with pytest.raises(RWalkError, match=r"parameters of optimizer 2, and those followed now are \[0, 1\]"):
        group.load_state_dict({"optimizers": {1: {}, 2: {}}})
    for index in (0, 1):
        assert_same_state(group.rwalks[index].state_dict(), before["optimizers"][index])


def test_of_states_that_do_not_all_fit_none_is_loaded():
    model, optimizers, group = learned()
    early = copy.deepcopy(group.state_dict())["optimizers"]
    del early[1]["parameters"]
    train(model, optimizers, task=1, steps=3)
    before = copy.deepcopy(group.state_dict())["optimizers"]
    with pytest.raises(StateError):
        group.load_state_dict({"optimizers": early})
    for index in (0, 1):
        assert_same_state(group.rwalks[index].state_dict(), before[index])


def interrupt(*_):
    raise KeyboardInterrupt


def not_finite(core):
    with torch.no_grad():
        core.model[2].weight[0, 0] = torch.nan


@pytest.mark.parametrize("interrupted", ["no", "within", "after"])
def test_a_task_that_cannot_end_in_every_core_ends_in_none(interrupted, monkeypatch):
    model, optimizers, group = learned()
    twin, others, expected = learned()
    kept = model[2].weight.detach().clone()
    before = copy.deepcopy(group.state_dict())["optimizers"]
    if interrupted == "within":
        ends = iter([consolidating._build_importance])

        def build(*arguments):
            next(ends, interrupt)(*arguments)

        monkeypatch.setattr(consolidating, "_build_importance", build)
    elif interrupted == "after":
        end = group.rwalks[1].consolidate

        def consolidate(*arguments):
            end(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(group.rwalks[1], "consolidate", consolidate)
    else:
        not_finite(group.rwalks[1])
    with pytest.raises(RWalkError if interrupted == "no" else KeyboardInterrupt):
        group.consolidate()
    monkeypatch.undo()
    with torch.no_grad():
        model[2].weight.copy_(kept)
    assert [rwalk.tasks for rwalk in group.rwalks.values()] == [1, 1]
    assert_same_state(group.rwalks[0].state_dict(), before[0])
    for each, own, its in ((model, optimizers, group), (twin, others, expected)):
        train(each, own, task=1, steps=3)
        its.consolidate()
    for index in (0, 1):
        assert group.rwalks[index].tasks == 2
        assert_same(group.rwalks[index].importances("fisher"), expected.rwalks[index].importances("fisher"))
    assert_same_state(group.rwalks[0].state_dict(), expected.rwalks[0].state_dict())


@pytest.mark.parametrize("config", [RWalkConfig.facil(), RWalkConfig.laplace()])
def test_every_core_reads_all_of_the_tasks_data(config):
    def scores(batch):
        return model(batch[0])

    found = []
    for once in (False, True):
        model, optimizers = model_and_optimizers()
        group = RWalkGroup(config)
        group.attach(model, optimizers)
        train(model, optimizers, task=0, steps=6)
        with pytest.raises(RWalkError, match="needs the task's data"):
            group.consolidate()
        data = [(x, (y[:, 0] > 0).long()) for x, y in batches(0, 4)]
        group.consolidate((batch for batch in data) if once else data, scores)
        assert [rwalk.tasks for rwalk in group.rwalks.values()] == [1, 1]
        found.append([rwalk.importances() for rwalk in group.rwalks.values()])
    assert all(bool(value.any()) for importances in found[0] for value in importances.values())
    for one, other in zip(*found, strict=True):
        assert_same(one, other)


def test_new_optimizers_are_noticed_and_followed_in_place_of_the_old_ones():
    model, optimizers, group = learned()
    successors = [torch.optim.SGD(model[0].parameters(), lr=0.1), optimizers[1]]
    assert group.follows(optimizers)
    assert not group.follows(successors)
    assert not group.follows(optimizers[:1])
    group.attach(model, successors)
    train(model, successors, task=1, steps=3)
    with pytest.raises(RWalkError, match="would not see this step"):
        train(model, optimizers[:1], task=1, steps=1)
    assert [rwalk.steps for rwalk in group.rwalks.values()] == [17, 17]


def test_a_parameter_in_two_optimizers_is_refused_before_anything_is_attached():
    model, optimizers = model_and_optimizers()
    groups = [{"params": [each]} for each in model[2].parameters()]
    optimizers = [optimizers[0], torch.optim.Adam(groups), torch.optim.SGD([model[2].bias], lr=0.1)]
    group = RWalkGroup(CONFIG)
    with pytest.raises(RWalkError, match=r"2\.bias is in optimizers \[1, 2\].*exclude=\('2\.bias',\)"):
        group.attach(model, optimizers)
    assert group.rwalks == {}
    group = RWalkGroup(CONFIG.replace(exclude=("2.bias",)))
    group.attach(model, optimizers)
    assert sorted(group.rwalks) == [0, 1]


def test_a_lost_optimizer_is_refused_and_the_others_stay_attached():
    model, optimizers, group = learned()
    with pytest.raises(RWalkError, match=r"parameters of optimizer 0, and only \[1\] of the 2"):
        group.attach(model, [torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1), optimizers[1]])
    assert group.rwalks[1].attached


def test_optimizers_of_another_model_are_refused():
    with pytest.raises(RWalkError, match="none of the parameters of Sequential"):
        RWalkGroup(CONFIG).attach(tanh_net(), [torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)])
