"""Anchors at the average of a task's iterates: the formula written out, and what interrupts a walk."""

import pytest
import torch
from torch import nn

from rwalk import RWalk, RWalkConfig

SETTINGS = RWalkConfig(ewc_lambda=0.1, anchor_at="average", average_every=3, scaling="sum")


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def learn(model, optimizer, steps, first=0, after=lambda: None):
    for step in range(first, first + steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(torch.randn(6, 4).double()), torch.randn(6, 2).double()).backward()
        optimizer.step()
        after()


def start(config=SETTINGS, seed=0):
    model = network(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    return model, optimizer, RWalk(model, optimizer, config)


def averaged(iterates):
    """With k to the third over all: Π of (1 − share) written out as weights."""
    shares = [4.0 / (k + 4.0) for k in range(len(iterates))]
    total = torch.zeros_like(iterates[0])
    for index, iterate in enumerate(iterates):
        rest = 1.0
        for share in shares[index + 1 :]:
            rest *= 1.0 - share
        total += shares[index] * rest * iterate
    return total


def recorder(model):
    seen = {name: [] for name, _ in model.named_parameters()}

    def note():
        for name, parameter in model.named_parameters():
            seen[name].append(parameter.detach().clone())

    return seen, note


def test_anchors_are_the_average_and_the_model_stays_where_it_is():
    model, optimizer, rwalk = start()
    for task in range(2):
        seen, note = recorder(model)
        learn(model, optimizer, 14, first=20 * task, after=note)
        rwalk.consolidate()
        state = rwalk.state_dict()["parameters"]
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(state[name]["anchor"], averaged(seen[name][2::3]), rtol=1e-12, atol=1e-14)
            assert torch.equal(parameter, seen[name][-1])
        assert rwalk.penalty() > 0.0


def test_a_task_ends_at_the_average_in_any_loop():
    """The model set to its anchors, the next task begins there: no step of the walk led from the last iterate to it."""
    model, optimizer, rwalk = start()
    apart, apart_optimizer, unmoved = start()
    assert rwalk.anchors() == {}
    seen, note = recorder(model)
    learn(model, optimizer, 14, after=note)
    learn(apart, apart_optimizer, 14)
    for walk in (rwalk, unmoved):
        walk.consolidate()
    anchors = rwalk.anchors()
    assert list(anchors) == [name for name, _ in model.named_parameters()]
    model.load_state_dict(anchors, strict=False)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), averaged(seen[name][2::3]), rtol=1e-12, atol=1e-14)
        anchors[name].zero_()  # a copy
    assert rwalk.penalty() == 0.0
    assert rwalk.anchors()["0.weight"].any()
    score = unmoved.importances("score")
    for name, value in rwalk.importances("score").items():
        assert torch.equal(value, score[name])
    learn(model, optimizer, 1, first=14)
    rwalk.settle()
    for name, parameter in model.named_parameters():
        before = averaged(seen[name][2::3])
        start_of_window = rwalk.state_dict()["parameters"][name]["window_start"]
        torch.testing.assert_close(start_of_window, before, rtol=1e-12, atol=1e-14)
        assert not torch.equal(parameter, before)


def test_anchors_of_weights_that_joined_since_are_where_they_joined():
    model, optimizer, rwalk = start(SETTINGS.replace(anchor_at="last"))
    learn(model, optimizer, 4)
    rwalk.consolidate()
    ended = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.append(nn.Linear(2, 2).double())
    optimizer.add_param_group({"params": list(model[3].parameters())})
    joined = {name: parameter.detach().clone() for name, parameter in model[3].named_parameters()}
    learn(model, optimizer, 3, first=4)
    anchors = rwalk.anchors()
    assert len(anchors) == 6
    for name, value in ended.items():
        assert torch.equal(anchors[name], value)
    for name, value in joined.items():
        assert torch.equal(anchors[f"3.{name}"], value)
        assert not torch.equal(model.get_parameter(f"3.{name}"), value)


def test_late_iterates_count_most():
    line = [torch.tensor([float(k)], dtype=torch.float64) for k in range(100)]
    assert averaged(line).item() == pytest.approx(100 * 4 / 5, rel=0.02)  # ∫ x⁴ / ∫ x³


def test_a_task_shorter_than_an_interval_ends_at_its_last_weights():
    model, optimizer, rwalk = start()
    learn(model, optimizer, 2)
    rwalk.consolidate()
    for name, parameter in model.named_parameters():
        assert torch.equal(rwalk.state_dict()["parameters"][name]["anchor"], parameter)


def test_a_state_saved_in_mid_task_goes_on_bit_for_bit(tmp_path):
    one, two = start(), start()
    for model, optimizer, _ in (one, two):
        learn(model, optimizer, 10)
    model, optimizer, rwalk = two
    rwalk.save(tmp_path / "state")
    rwalk.detach()
    two = model, optimizer, RWalk.load(tmp_path / "state", model, optimizer)
    for model, optimizer, rwalk in (one, two):
        learn(model, optimizer, 10, first=10)
        rwalk.consolidate()
    for name, values in one[2].state_dict()["parameters"].items():
        assert torch.equal(values["anchor"], two[2].state_dict()["parameters"][name]["anchor"])


def test_between_tasks_no_average_is_kept():
    model, optimizer, rwalk = start()
    learn(model, optimizer, 6)
    assert "average" in rwalk.state_dict()["parameters"]["0.weight"]
    rwalk.consolidate()
    assert "average" not in rwalk.state_dict()["parameters"]["0.weight"]


@pytest.mark.parametrize(("how", "counted"), [("load_state_dict", 5), ("drop_window", 5), ("end_window", 6)])
def test_other_weights_begin_another_average(how, counted):
    model, optimizer, rwalk = start()
    learn(model, optimizer, 6)  # the last of which is dropped, unless it was settled before
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    if how == "end_window":
        rwalk.end_window()
    model.load_state_dict({name: value + 1.0 for name, value in kept.items()})
    if how == "drop_window":
        rwalk.drop_window()
    seen, note = recorder(model)
    learn(model, optimizer, 6, first=6, after=note)
    rwalk.consolidate()
    for name, values in rwalk.state_dict()["parameters"].items():
        expected = averaged(seen[name][2 - counted % 3 :: 3])
        torch.testing.assert_close(values["anchor"], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("delta_t", "broken"), [(3, False), (50, True)])
def test_weights_put_back_begin_another_average(delta_t, broken):
    model, optimizer, rwalk = start(SETTINGS.replace(delta_t=delta_t, average_every=1))
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    learn(model, optimizer, 3)
    if broken:  # the average is not finite from here on
        model[0].weight.data.fill_(float("inf"))
    rwalk.settle()  # with windows of three, none is open now and nothing is pending
    model.load_state_dict(kept)
    seen, note = recorder(model)
    learn(model, optimizer, 6, first=3, after=note)
    rwalk.consolidate()
    for name, values in rwalk.state_dict()["parameters"].items():
        torch.testing.assert_close(values["anchor"], averaged(seen[name]), rtol=1e-12, atol=1e-14)


def test_leaving_the_optimizer_is_as_good_as_being_frozen():
    found = []
    for how in ("leaves", "is frozen"):
        model, optimizer, rwalk = start(SETTINGS.replace(average_every=1, delta_t=50))
        learn(model, optimizer, 4)
        if how == "leaves":
            optimizer.param_groups[0]["params"].remove(model[0].weight)
        else:
            model[0].weight.requires_grad_(False)
            model[0].weight.grad = None
        learn(model, optimizer, 4, first=4)
        rwalk.consolidate()
        found.append(rwalk.state_dict()["parameters"]["0.weight"]["anchor"])
    assert torch.equal(*found)


def test_what_joins_late_has_an_average_of_its_own():
    model, optimizer, rwalk = start()
    frozen = model[0].weight.requires_grad_(False)
    learn(model, optimizer, 7)
    frozen.requires_grad_(True)
    seen, note = recorder(model)
    learn(model, optimizer, 7, first=7, after=note)
    rwalk.consolidate()
    found = rwalk.state_dict()["parameters"]["0.weight"]["anchor"]
    torch.testing.assert_close(found, averaged(seen["0.weight"][1::3]), rtol=1e-12, atol=1e-14)


def test_protect_holds_the_model_as_it_stands():
    model, optimizer, rwalk = start(SETTINGS.replace(combine="mean"))
    learn(model, optimizer, 9)
    rwalk.protect([torch.randn(20, 4).double()], likelihood="gaussian")
    for name, parameter in model.named_parameters():
        assert torch.equal(rwalk.state_dict()["parameters"][name]["anchor"], parameter)


def test_a_step_that_does_not_count_is_in_no_average():
    model, optimizer, rwalk = start(SETTINGS.replace(average_every=1))
    other, plain, twin = start(SETTINGS.replace(average_every=1))
    for step in range(8):
        learn(model, optimizer, 1, first=step)
        if step == 4:  # a step with a gradient that is not finite, which a scaler skips
            rwalk.detach()
            rwalk.before_step()
            rwalk.after_step(skipped=True)
            rwalk.attach()
        learn(other, plain, 1, first=step)
    rwalk.consolidate()
    twin.consolidate()
    for name, values in rwalk.state_dict()["parameters"].items():
        assert torch.equal(values["anchor"], twin.state_dict()["parameters"][name]["anchor"])


@pytest.mark.parametrize(
    ("settings", "told"), [({"average_every": 0}, "average_every=0"), ({"anchor_at": "mean"}, "'last', 'average'")]
)
def test_settings_that_mean_nothing_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        RWalkConfig(**settings)
