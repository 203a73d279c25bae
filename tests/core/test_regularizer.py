"""RWalk as a training loop holds it: order of calls, ends of tasks, what it reports."""

import gc
import re
import weakref

import pytest
import torch

from reference.problems import assert_same, assert_same_state, gradients, tanh_net, train, weights
from rwalk import RWalk, RWalkConfig, RWalkError


def sgd_walk(config=None, lr=0.1, **arguments):
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    return model, optimizer, RWalk(model, optimizer, config, **arguments)


def test_attaching_twice_is_refused():
    _, _, rwalk = sgd_walk()
    with pytest.raises(RWalkError, match="attached already"):
        rwalk.attach()
    assert rwalk.attached


def test_detaching_twice_is_refused_and_a_detached_walk_sees_nothing():
    model, optimizer, rwalk = sgd_walk()
    train(model, optimizer, task=0, steps=3)
    rwalk.detach()
    assert not rwalk.attached
    with pytest.raises(RWalkError, match="not attached"):
        rwalk.detach()
    train(model, optimizer, task=0, steps=5)
    assert rwalk.steps == 3
    rwalk.attach()
    train(model, optimizer, task=0, steps=2)
    assert rwalk.steps == 5


def test_steps_out_of_order_are_refused():
    model, _, rwalk = sgd_walk(attach=False)
    with pytest.raises(RWalkError, match=r"after_step\(\) without before_step"):
        rwalk.after_step()
    model(torch.ones(1, 3).double()).sum().backward()
    rwalk.before_step()
    for call in (rwalk.before_step, rwalk.consolidate, rwalk.state_dict):
        with pytest.raises(RWalkError, match="before_step"):
            call()
    rwalk.after_step()
    with pytest.raises(RWalkError, match=r"after_step\(\) without before_step"):
        rwalk.after_step()
    assert rwalk.steps == 1


def test_a_step_read_by_hand_while_attached_is_refused():
    model, optimizer, rwalk = sgd_walk()
    train(model, optimizer, task=0, steps=1)
    rwalk.before_step()
    with pytest.raises(RWalkError, match="called twice"):
        optimizer.step()


def test_calls_by_hand_equal_hooks_bit_for_bit():
    model, optimizer, rwalk = sgd_walk()
    by_hand, its_optimizer, its_walk = sgd_walk(attach=False)
    its_optimizer.register_step_pre_hook(lambda *_: its_walk.before_step())
    its_optimizer.register_step_post_hook(lambda *_: its_walk.after_step())
    for task in range(2):
        for each in ((model, optimizer), (by_hand, its_optimizer)):
            train(*each, task=task, steps=14)
        rwalk.consolidate()
        its_walk.consolidate()
    assert_same(weights(by_hand), weights(model))
    assert_same_state(its_walk.state_dict(), rwalk.state_dict())


def test_the_strength_may_change_between_steps():
    model = torch.nn.ParameterDict({"p": torch.nn.Parameter(torch.ones(2))})
    rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), RWalkConfig(ewc_lambda=1.0), attach=False)
    pulls = []
    for strength in (1.0, 2.0):
        for anchor in (1.0, 3.0):
            rwalk.config = rwalk.config.replace(ewc_lambda=strength)
            model["p"].data.fill_(anchor)
            model["p"].grad = torch.full((2,), 1e-9)
            rwalk.before_step()
            rwalk.after_step()
            if rwalk.tasks == 0:
                rwalk.consolidate()
        pulls.append(model["p"].grad[0].item())
    assert pulls[0] > 0
    assert pulls[1] == pytest.approx(2 * pulls[0])


LAID_OUT = [
    {"delta_t": 1}, {"state_dtype": "bfloat16"}, {"exclude": ("p",)}, {"score_average": "latest"}, {"rectify": "task"},
]  # fmt: skip


@pytest.mark.parametrize("changed", LAID_OUT, ids=lambda changed: next(iter(changed)))
def test_a_setting_that_lays_out_state_stays(changed):
    _, _, rwalk = sgd_walk()
    before = rwalk.config
    name, value = next(iter(changed.items()))
    message = (
        rf"config: {name} decides .* cannot change from .* to {re.escape(repr(value))} in .* load\(\) a saved state"
    )
    with pytest.raises(RWalkError, match=message):
        rwalk.config = before.replace(**changed)
    with pytest.raises(TypeError, match="config="):
        rwalk.config = {"ewc_lambda": 2.0}
    assert rwalk.config is before


def test_wrong_types_are_refused_by_name():
    model = tanh_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match="model="):
        RWalk(list(model.parameters()), optimizer)
    with pytest.raises(TypeError, match="optimizer="):
        RWalk(model, model)
    with pytest.raises(TypeError, match="config="):
        RWalk(model, optimizer, {"ewc_lambda": 1.0})
    RWalk(model, optimizer)  # what was refused left nothing attached


def test_everything_is_freed_with_its_last_reference():
    model, optimizer, rwalk = sgd_walk()
    train(model, optimizer, task=0, steps=2)
    watched = weakref.ref(model)
    del model, optimizer, rwalk
    gc.collect()
    assert watched() is None


def test_penalty_is_zero_first_then_differentiable_and_leaves_gradients_alone():
    model, optimizer, rwalk = sgd_walk(RWalkConfig(ewc_lambda=2.0))
    assert rwalk.penalty().item() == 0.0
    train(model, optimizer, task=0, steps=20)
    rwalk.consolidate()
    assert rwalk.penalty().item() == 0.0
    with torch.no_grad():
        model[0].weight.add_(0.5)
    before = gradients(model)
    value = rwalk.penalty()
    expected = 2.0 * 0.25 * rwalk.importances()["0.weight"].sum()
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    assert value.requires_grad
    assert_same(gradients(model), before)


def test_importances_are_copies_by_name_and_unknown_kinds_are_refused():
    model, optimizer, rwalk = sgd_walk()
    assert rwalk.importances() == {}
    train(model, optimizer, task=0, steps=11)
    rwalk.consolidate()
    for kind in ("penalty", "fisher", "score"):
        found = rwalk.importances(kind)
        assert {name: value.shape for name, value in found.items()} == {n: w.shape for n, w in weights(model).items()}
        found["0.weight"].fill_(7.0)
        assert not bool((rwalk.importances(kind)["0.weight"] == 7.0).any())
    with pytest.raises(ValueError, match=r"kind='fischer'.*'penalty', 'fisher', 'score'"):
        rwalk.importances("fischer")


def test_a_state_dict_is_a_copy():
    model, optimizer, rwalk = sgd_walk()
    train(model, optimizer, task=0, steps=12)
    rwalk.consolidate()
    state = rwalk.state_dict()
    kept = {n: {q: torch.as_tensor(v).clone() for q, v in values.items()} for n, values in state["parameters"].items()}
    train(model, optimizer, task=1, steps=12)
    rwalk.consolidate()
    for name, values in kept.items():
        for quantity, value in values.items():
            assert torch.equal(torch.as_tensor(state["parameters"][name][quantity]), value), (name, quantity)
