"""Layers by name, and the classification layer."""

import pytest
import torch
from torch import nn

from replay.models import Tail
from rwalk.replay.layers import class_weight, classifier_of, find_layer


def test_a_layer_is_found_by_its_name():
    model = Tail()
    assert find_layer(model, "body.2") is model.body[2]
    assert find_layer(model, "classify") is model.classify


def test_what_wrappers_put_in_front_may_be_left_out_or_not():
    model = Tail()
    wrapped = nn.DataParallel(torch.compile(model, backend="eager"))
    assert find_layer(wrapped, "body.0") is find_layer(wrapped, "module._orig_mod.body.0") is model.body[0]
    assert classifier_of(wrapped, "classify") == ("classify", model.classify)


def test_a_part_that_was_compiled_keeps_its_names():
    model = Tail()
    layer = model.body[0]
    model.body = torch.compile(model.body, backend="eager")
    assert find_layer(model, "body.0") is find_layer(model, "body._orig_mod.0") is layer


def test_a_models_own_module_of_that_name_is_found():
    model = nn.ModuleDict({"module": nn.Sequential(nn.Linear(2, 2)), "0": nn.ReLU()})
    assert find_layer(model, "module.0") is model["module"][0]
    assert find_layer(model, "0") is model["0"]
    assert find_layer(model, "module") is model["module"]


@pytest.mark.parametrize(("wrong", "likely"), [("clasify", "classify"), ("recurent", "recurrent"), ("bodi", "body")])
def test_an_unknown_name_is_answered_with_the_names_most_like_it(wrong, likely):
    with pytest.raises(ValueError, match=f"the model has no layer '{wrong}'; the names most like it: {likely}, "):
        find_layer(Tail(), wrong)


def test_a_model_without_layers_says_so():
    with pytest.raises(ValueError, match=r"no layer ''; the names most like it: \(it has none\)"):
        find_layer(nn.ReLU(), "")


def test_the_classifier_is_the_last_linear_layer_unless_named():
    model = Tail()
    assert classifier_of(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.ReLU()))[0] == "1"
    assert classifier_of(model) == ("unused", model.unused)
    assert classifier_of(model, "classify") == ("classify", model.classify)


def test_the_weight_of_a_class_is_its_row_and_a_value():
    model = Tail()
    row = class_weight(model, 2, "classify")
    assert torch.equal(row, model.classify.weight[2])
    assert not row.requires_grad


@pytest.mark.parametrize(
    ("model", "label", "name", "message"),
    [
        (nn.Conv2d(1, 2, 3), 0, None, "Conv2d has no nn.Linear: name the classification layer"),
        (Tail(), 0, "body.2", r"layer 'body.2' \(ReLU\) cannot classify"),
        (Tail(), 0, "body.1", r"layer 'body.1' \(BatchNorm1d\) cannot classify"),
        (Tail(), 3, "classify", "classification layer 'classify' has 3 rows, none for class 3"),
        (Tail(), -1, "classify", "classification layer 'classify' has 3 rows, none for class -1"),
    ],
)
def test_what_cannot_classify_is_refused(model, label, name, message):
    with pytest.raises(ValueError, match=message):
        class_weight(model, label, name)
