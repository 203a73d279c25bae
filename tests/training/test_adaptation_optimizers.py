"""An optimizer that follows a growing model, against one that had the large model from the start."""

import logging
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adadelta, Adafactor, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop, Rprop

from models.arriving import experience, features
from reference.problems import assert_same, weights
from rwalk.models import IncrementalClassifier, MaskedClassifier, MultiHeadClassifier, MultiTaskNetwork, grow
from rwalk.models.following import follow_parameters, grown_state, parameters_of
from rwalk.training.adaptation import adapt_model

ARRIVALS = [(0, 1), (2, 4), (3,), (5,)]
OPTIMIZERS = {
    "sgd": partial(SGD, lr=0.1),
    "momentum": partial(SGD, lr=0.1, momentum=0.9, nesterov=True),
    "adam": partial(Adam, lr=0.01, amsgrad=True),
    "adam, fused": partial(Adam, lr=0.01, fused=True),
    "adamw": partial(AdamW, lr=0.01, weight_decay=0.0, foreach=False),
    "adamax": partial(Adamax, lr=0.01),
    "nadam": partial(NAdam, lr=0.01),
    "radam": partial(RAdam, lr=0.01),
    "rmsprop": partial(RMSprop, lr=0.01, momentum=0.9, centered=True),
    "adagrad": partial(Adagrad, lr=0.1, initial_accumulator_value=0.3),
    "adadelta": partial(Adadelta, lr=1.0),
}


def network(head) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), head(8))


def steps(model, optimizer, classes, count=4, seed=0):
    for step in range(count):
        x = features(6, 3, seed + step)
        labels = torch.tensor([classes[row % len(classes)] for row in range(6)])
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_growing_trains_as_a_layer_that_was_large_from_the_start(make):
    """There, rows of classes to come have a gradient of zero, so that their momenta are zero when they arrive."""
    growing, large = network(IncrementalClassifier), network(partial(MaskedClassifier, n_classes=6))
    large[0].load_state_dict(growing[0].state_dict())
    optimizers = make(growing.parameters()), make(large.parameters())
    rows = 0
    for classes in ARRIVALS:
        for model, optimizer in zip((growing, large), optimizers, strict=True):
            adapt_model(model, optimizer, experience(*classes))
        with torch.no_grad():
            for mine, theirs in zip(growing[2].parameters(), large[2].parameters(), strict=True):
                theirs[rows : len(mine)] = mine[rows:]
        rows = len(growing[2].classifier.weight)
        for model, optimizer in zip((growing, large), optimizers, strict=True):
            steps(model, optimizer, classes, seed=rows)
        for name, value in weights(growing).items():
            torch.testing.assert_close(value, weights(large)[name][: len(value)], rtol=1e-5, atol=1e-6)
    assert rows == 6
    for mine, theirs in zip(growing[2].parameters(), large[2].parameters(), strict=True):
        found, expected = optimizers[0].state[mine], optimizers[1].state[theirs]
        assert set(found) == set(expected)
        for key, value in found.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_all_that_did_not_change_stays_bit_for_bit(make):
    torch.manual_seed(0)
    model = MultiTaskNetwork(nn.Linear(3, 8), MultiHeadClassifier(8))
    optimizer = make([*model.features.parameters()])
    adapt_model(model, optimizer, experience(0, 1, task=0))
    for step in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(features(4, 3, step), 0), torch.tensor([0, 1, 0, 1])).backward()
        optimizer.step()
    groups = list(optimizer.param_groups)
    before = {p: {k: _copy(v) for k, v in optimizer.state[p].items()} for p in model.parameters()}
    assert adapt_model(model, optimizer, experience(2, 3, task=1))
    for parameter, state in before.items():
        for key, value in state.items():
            now = optimizer.state[parameter][key]
            assert torch.equal(now, value) if isinstance(value, torch.Tensor) else now == value
    assert all(a is b for a, b in zip(groups, optimizer.param_groups, strict=True))
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in model.parameters()}


def _copy(value):
    return value.clone() if isinstance(value, torch.Tensor) else value


def test_momenta_keep_their_values_and_new_rows_begin_at_zero():
    model = network(IncrementalClassifier)
    optimizer = Adam(model.parameters(), lr=0.01)
    steps(model, optimizer, (0, 1), count=3)
    old = {key: value.clone() for key, value in optimizer.state[model[2].classifier.weight].items()}
    adapt_model(model, optimizer, experience(4))
    state = optimizer.state[model[2].classifier.weight]
    assert state["step"] == old["step"] == 3
    for key in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(state[key][:2], old[key])
        assert old[key].any()
        assert state[key].shape == (5, 8)
        assert not state[key][2:].any()


@given(st.data())
def test_any_shape_grows_and_shrinks_by_its_common_block(data):
    dims = data.draw(st.integers(1, 3))
    shape = st.lists(st.integers(1, 4), min_size=dims, max_size=dims)
    old, new = data.draw(shape), data.draw(shape)
    value = torch.randn(old)
    grown = grown_state({"step": torch.tensor(3.0), "exp_avg": value, "sum": value}, old, new, accumulator=0.5)
    for key, fill in (("exp_avg", 0.0), ("sum", 0.5)):
        for position in torch.ones(new).nonzero().tolist():
            inside = all(p < o for p, o in zip(position, old, strict=True))
            assert grown[key][tuple(position)] == (value[tuple(position)] if inside else fill)
    assert grown["step"] == 3


def test_factored_state_grows_along_what_it_is_not_reduced_over():
    model = network(IncrementalClassifier)
    optimizer = Adafactor(model.parameters(), lr=0.01)
    steps(model, optimizer, (0, 1))
    state = optimizer.state[model[2].classifier.weight]
    row, column = state["row_var"].clone(), state["col_var"].clone()
    adapt_model(model, optimizer, experience(2))
    state = optimizer.state[model[2].classifier.weight]
    assert torch.equal(state["row_var"], torch.cat([row, torch.zeros(1, 1)]))
    assert torch.equal(state["col_var"], column)
    steps(model, optimizer, (2,))
    assert model[2].classifier.weight.isfinite().all()


def test_state_whose_beginning_is_not_known_starts_afresh_and_says_so(caplog):
    model = network(IncrementalClassifier)
    optimizer = Rprop(model.parameters(), lr=0.01)
    steps(model, optimizer, (0, 1))
    body = {key: _copy(value) for key, value in optimizer.state[model[0].weight].items()}
    with caplog.at_level(logging.WARNING):
        adapt_model(model, optimizer, experience(0, 1, 2))
    named = [record.getMessage() for record in caplog.records]
    assert any("2.classifier.weight has grown, and how to grow what Rprop remembers" in message for message in named)
    assert_same(optimizer.state[model[0].weight], body)
    before = weights(model)
    steps(model, optimizer, (2,))
    assert (weights(model)["2.classifier.bias"][2] != before["2.classifier.bias"][2]).item()


def test_new_parameters_join_the_group_of_their_nearest_relative():
    torch.manual_seed(0)
    model = MultiTaskNetwork(nn.Linear(3, 8), MultiHeadClassifier(8))
    adapt_model(model, SGD(model.parameters(), lr=1.0), experience(0, 1))
    heads = model.classifier.classifiers
    settings = {"features": model.features.parameters(), "w": [heads["0"].weight], "b": [heads["0"].bias]}
    optimizer = SGD([{"params": list(p), "lr": lr} for lr, p in enumerate(settings.values(), 1)])
    adapt_model(model, optimizer, experience(2, 3, task=1))
    found = {group["lr"]: [id(p) for p in group["params"]] for group in optimizer.param_groups}
    assert found[2] == [id(heads["0"].weight), id(heads["1"].weight)]
    assert found[3] == [id(heads["0"].bias), id(heads["1"].bias)]


def test_the_first_head_joins_the_last_group_of_the_body_that_has_its_kind():
    model = MultiTaskNetwork(nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 8)), MultiHeadClassifier(8))
    optimizer = SGD([{"params": list(layer.parameters()), "lr": lr} for lr, layer in enumerate(model.features, 1)])
    adapt_model(model, optimizer, experience(0, 1))
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 4]


def test_named_groups_keep_names_and_parameters_in_step():
    model = MultiTaskNetwork(nn.Linear(3, 8), MultiHeadClassifier(8))
    optimizer = SGD(model.named_parameters(), lr=1.0)
    adapt_model(model, optimizer, experience(0, 1))
    (group,) = optimizer.param_groups
    assert dict(zip(group["param_names"], map(id, group["params"]), strict=True)) == {
        name: id(p) for name, p in model.named_parameters()
    }
    before = parameters_of(model)
    del model.classifier.classifiers["0"]
    assert follow_parameters(optimizer, before, model)
    assert group["param_names"] == ["features.weight", "features.bias"]
    assert len(group["params"]) == 2


@pytest.fixture
def trained():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    steps(model, optimizer, (0, 1))
    return model, optimizer


def momentum(optimizer, parameter):
    return optimizer.state[parameter]["momentum_buffer"]


def test_a_layer_that_is_replaced_hands_over_place_and_state(trained):
    model, optimizer = trained
    old, before = model[1], parameters_of(model)
    kept = momentum(optimizer, old.weight).clone()
    model[1] = nn.Linear(4, 3)
    assert follow_parameters(optimizer, before, model)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in model.parameters()]
    assert torch.equal(momentum(optimizer, model[1].weight), torch.cat([kept, torch.zeros(1, 4)]))
    assert old.weight not in optimizer.state


def test_a_layer_put_in_between_takes_nothing_from_those_that_moved_up(trained):
    model, optimizer = trained
    last, before = model[1], parameters_of(model)
    kept = momentum(optimizer, last.weight).clone()
    model.insert(1, nn.Linear(4, 4))
    assert follow_parameters(optimizer, before, model)
    assert torch.equal(momentum(optimizer, last.weight), kept)
    assert model[1].weight not in optimizer.state
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in model.parameters()}


def test_a_layer_that_is_taken_out_leaves_the_optimizer(trained):
    model, optimizer = trained
    gone, before = model[1], parameters_of(model)
    model[1] = nn.Identity()
    assert follow_parameters(optimizer, before, model)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in model.parameters()]
    assert gone.weight not in optimizer.state


def test_a_layer_that_moves_into_the_place_of_one_that_left_is_there_once_with_its_own_state(trained):
    model, optimizer = trained
    last, before = model[1], parameters_of(model)
    kept = momentum(optimizer, last.weight).clone()
    del model[0]
    assert follow_parameters(optimizer, before, model)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in last.parameters()]
    assert torch.equal(momentum(optimizer, last.weight), kept)
    assert len(optimizer.state) == 2


def test_a_layer_that_grew_in_place_is_followed_too(trained):
    model, optimizer = trained
    weight, before = model[1].weight, parameters_of(model)
    kept = momentum(optimizer, weight).clone()
    weight.data, weight.grad = torch.cat([weight.data, torch.ones(1, 4)]), None
    assert follow_parameters(optimizer, before, model)
    assert torch.equal(momentum(optimizer, weight), torch.cat([kept, torch.zeros(1, 4)]))


def test_what_the_optimizer_did_not_move_it_does_not_move_after_growth_either():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = SGD(model[0].parameters(), lr=0.1)
    before = parameters_of(model)
    grow(model[1], 3)
    assert follow_parameters(optimizer, before, model)
    before = parameters_of(model)
    model[1] = nn.Linear(4, 4)
    assert follow_parameters(optimizer, before, model)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in model[0].parameters()]


def test_nothing_to_follow_is_nothing_done(trained):
    model, optimizer = trained
    assert not follow_parameters(optimizer, parameters_of(model), model)
    assert not adapt_model(model, optimizer, experience(0))
    masked = network(partial(MaskedClassifier, n_classes=3))
    assert not adapt_model(masked, SGD(masked.parameters(), lr=1.0), experience(0))
