"""Networks by name or by import path, with the head that is asked for."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from rwalk.models import (
    HEADS,
    MODELS,
    CurrentClassifier,
    IncrementalClassifier,
    MaskedClassifier,
    MultiHeadClassifier,
    build_model,
)

USERS_OWN = """
import torch
from torch import nn

def net(input_shape, n_classes, width=5):
    layers = [nn.Linear(input_shape[0], width), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.Linear(width, n_classes)] if n_classes else []))

def image(input_shape, n_classes):
    return nn.Conv2d(input_shape[0], 4, 1)

def text(input_shape, n_classes):
    return nn.EmbeddingBag(9, 6)

class Tokens(nn.EmbeddingBag):
    num_features = 6

def told(input_shape, n_classes):
    return Tokens(9, 6)

def anything(input_shape, n_classes, **options):
    return nn.Linear(input_shape[0], options["width"])

def nothing(input_shape, n_classes):
    return "a network"

number = 3
"""
KINDS = {
    "single": nn.Linear,
    "masked": MaskedClassifier,
    "current": CurrentClassifier,
    "multi": MultiHeadClassifier,
    "growing": IncrementalClassifier,
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module in the current folder, as for a command."""
    (tmp_path / "users_own_networks.py").write_text(USERS_OWN)
    monkeypatch.chdir(tmp_path)
    yield "users_own_networks"
    sys.modules.pop("users_own_networks", None)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("name", ["mlp", "slim-resnet18", "text-mlp"])
def test_any_body_gets_any_head(name, heads):
    shape = {"text-mlp": (6,)}.get(name, (3, 8, 8))
    network = build_model(name, shape, 5, heads)
    assert [child for child, _ in network.named_children()] == ["features", "classifier"]
    assert type(network.classifier) is KINDS[heads]
    assert isinstance(network.features, type(MODELS[name](shape, 0)))


def test_options_reach_the_network():
    assert build_model("mlp", (4,), 3, hidden=(7, 5)).classifier.in_features == 5
    assert build_model("mlp", (4,), 3, "multi", hidden=(7, 5)).classifier.in_features == 5


@pytest.mark.parametrize("known", [False, True], ids=["not on the path", "on the path"])
@pytest.mark.parametrize("heads", HEADS)
def test_a_network_by_import_path_gets_any_head(own, heads, known, monkeypatch):
    if known:
        monkeypatch.syspath_prepend(str(Path.cwd()))
    path = list(sys.path)
    network = build_model(f"{own}:net", (4,), 3, heads, width=6)
    assert sys.path == path
    if heads == "single":
        assert network(torch.zeros(2, 4)).shape == (2, 3)
    else:
        assert type(network.classifier) is KINDS[heads]
        assert getattr(network.classifier, "classifier", network.classifier).in_features == 6


def test_looking_at_the_width_leaves_no_trace(own):
    network = build_model(f"{own}:net", (4,), 3, "masked")
    assert all(module.training for module in network.modules())
    assert network.features[1].num_batches_tracked == 0


def test_a_network_for_other_inputs_says_how_wide_it_is(own):
    with pytest.raises(ValueError, match=r"EmbeddingBag gives: it does not run on float32 zeros .* num_features"):
        build_model(f"{own}:text", (4,), 3, "masked")
    assert build_model(f"{own}:told", (4,), 3, "masked").classifier.classifier.in_features == 6


def test_a_function_that_takes_any_option_is_asked_no_questions(own):
    assert build_model(f"{own}:anything", (4,), 3, width=8).out_features == 8


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50", "unknown model 'resnet50' .did you mean 'resnet32'.*: choose one of mlp, .*import path"),
        ("no.such:net", r"'no.such:net': cannot import no.such \(No module named 'no'\)"),
        ("math:nothing", "module math has no 'nothing'"),
        ("math:", "'math:': expected an import path 'package.module:function'"),
        (":net", "':net': expected an import path"),
        ("a b:net", "'a b:net': expected an import path"),
        ("users_own_networks:number", "'users_own_networks:number' is a int: expected a function"),
    ],
)
def test_names_that_lead_nowhere(own, name, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, (4,), 3)


def test_other_refusals(own):
    with pytest.raises(
        ValueError, match="heads='double': expected one of 'single', 'masked', 'current', 'multi', 'growing'"
    ):
        build_model("mlp", (4,), 3, "double")
    with pytest.raises(ValueError, match="n_classes=0: expected at least 1"):
        build_model("mlp", (4,), 0)
    with pytest.raises(TypeError, match="model 'mlp' has no option 'widht'; it has: hidden"):
        build_model("mlp", (4,), 3, widht=3)
    with pytest.raises(TypeError, match="users_own_networks:nothing returned a str: expected a torch"):
        build_model(f"{own}:nothing", (4,), 3)
    with pytest.raises(
        ValueError, match=r"Conv2d gives shape \(1, 4, 5, 5\) for one input: expected features \(1, D\)"
    ):
        build_model(f"{own}:image", (3, 5, 5), 3, "masked")
