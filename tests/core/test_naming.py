"""Names that survive wrapping, and the patterns that choose among them."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from reference.problems import assert_same, tanh_net, train
from rwalk import RWalk, RWalkConfig, RWalkError
from rwalk.core.inspection import summarize_state
from rwalk.core.names import canonical_name, canonical_names, selected_parameters


class Wrapper(nn.Module):
    """Keeps the model under an attribute, as DataParallel, DDP and ``torch.compile`` do."""

    def __init__(self, attribute: str, model: nn.Module):
        super().__init__()
        self.attribute = attribute
        self.add_module(attribute, model)

    def forward(self, x):
        return getattr(self, self.attribute)(x)


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        ("weight", "weight"),
        ("module.weight", "weight"),
        ("module.module.0.weight", "0.weight"),
        ("_orig_mod.0.weight", "0.weight"),
        ("module._orig_mod.0.weight", "0.weight"),
        ("_orig_mod.module.0.weight", "0.weight"),
        ("blocks.0._checkpoint_wrapped_module.fc.weight", "blocks.0.fc.weight"),
        ("_fsdp_wrapped_module.blocks.1._fsdp_wrapped_module.weight", "blocks.1.weight"),
        ("encoder.module.weight", "encoder.module.weight"),
        ("module", "module"),
    ],
)
def test_canonical_name(raw, canonical):
    assert canonical_name(raw) == canonical


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        ([], []),
        (["module.weight", "module.bias"], ["weight", "bias"]),
        (["module.module.weight", "module.module.bias"], ["weight", "bias"]),
        (["module.weight", "head.weight"], ["module.weight", "head.weight"]),
        (["module.module.weight", "module.head.weight"], ["module.weight", "head.weight"]),
        (["module._orig_mod.module.weight", "module._orig_mod.head.weight"], ["module.weight", "head.weight"]),
        (["module._orig_mod.a.weight", "module._orig_mod.b.weight"], ["a.weight", "b.weight"]),
        (["module.weight", "temperature"], ["module.weight", "temperature"]),
        (["module"], ["module"]),
    ],
)
def test_module_in_front_is_a_wrappers_where_it_stands_in_front_of_all(raw, canonical):
    assert canonical_names(raw) == canonical


class OwnModule(nn.Module):
    """Its own child is called ``module``, and has another beside it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.module, self.head = nn.Linear(3, 4).double(), nn.Linear(4, 2).double()

    def forward(self, x):
        return self.head(self.module(x).tanh())


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_child_called_module_keeps_its_name_to_be_left_out_by_and_loaded_by(wrapped):
    bare = OwnModule()
    model = Wrapper("module", bare) if wrapped else bare
    assert set(selected_parameters(model, RWalkConfig(exclude=("module.*",)))) == {"head.weight", "head.bias"}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    train(model, optimizer, task=0, steps=3)
    rwalk.consolidate()
    assert set(rwalk.anchors()) == set(bare.state_dict())
    kept = {name: value.clone() for name, value in bare.state_dict().items()}
    train(model, optimizer, task=1, steps=3)
    bare.load_state_dict(rwalk.anchors(), strict=False)
    assert_same(bare.state_dict(), kept)
    other = OwnModule()
    RWalk(other, torch.optim.SGD(other.parameters(), lr=0.1)).load_state_dict(rwalk.state_dict())


def test_a_state_from_before_with_module_left_out_of_its_names_still_loads():
    model, other = OwnModule(), OwnModule()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    train(model, optimizer, task=0, steps=12)
    rwalk.consolidate()
    state = rwalk.state_dict()
    before = {canonical_name(name): values for name, values in state["parameters"].items()}
    assert "weight" in before
    fresh = RWalk(other, torch.optim.SGD(other.parameters(), lr=0.1))
    fresh.load_state_dict({**state, "parameters": before})
    assert_same(fresh.importances(), rwalk.importances())


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: Wrapper("module", model), AveragedModel])
@pytest.mark.parametrize("make", [OwnModule, tanh_net])
def test_a_states_distances_are_found_by_the_names_of_wrapped_weights_too(make, wrap, tmp_path):
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer)
    train(model, optimizer, task=0, steps=3)
    rwalk.consolidate()
    rwalk.save(tmp_path / "state")
    found = summarize_state(tmp_path / "state", wrap(model).state_dict())["parameters"]
    assert {name: values["distance"] for name, values in found.items()} == dict.fromkeys(model.state_dict(), 0.0)


@pytest.mark.parametrize("attribute", ["module", "_orig_mod"])
def test_state_of_a_wrapped_model_fits_the_bare_one(attribute):
    wrapped = Wrapper(attribute, tanh_net())
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    rwalk = RWalk(wrapped, optimizer)
    train(wrapped, optimizer, task=0, steps=12)
    rwalk.consolidate()
    bare = tanh_net(seed=1)
    fresh = RWalk(bare, torch.optim.SGD(bare.parameters(), lr=0.1))
    fresh.load_state_dict(rwalk.state_dict())
    assert set(fresh.importances()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert fresh.importances()["0.weight"].abs().sum() > 0


def test_names_that_collide_without_wrappers_are_refused():
    model = nn.ModuleDict({"a": nn.Linear(1, 1), "_orig_mod": nn.ModuleDict({"a": nn.Linear(1, 1)})})
    with pytest.raises(RWalkError, match=r"both called 'a\.weight'"):
        RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), (), {"0.weight", "0.bias", "2.weight", "2.bias"}),
        (("0.*",), (), {"0.weight", "0.bias"}),
        ((), ("2.*",), {"0.weight", "0.bias"}),
        (("*.weight", "2.bias"), (), {"0.weight", "2.weight", "2.bias"}),
        (("0.*",), ("*.bias",), {"0.weight"}),
    ],
)
def test_include_and_exclude_choose_what_is_tracked(include, exclude, expected):
    model = tanh_net()
    config = RWalkConfig(include=include, exclude=exclude)
    assert set(selected_parameters(model, config)) == expected
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rwalk = RWalk(model, optimizer, config)
    train(model, optimizer, task=0, steps=3)
    assert set(rwalk.importances("fisher")) == expected


def test_patterns_are_case_sensitive_and_see_canonical_names():
    model = Wrapper("module", nn.ModuleDict({"Head": nn.Linear(1, 1), "head": nn.Linear(1, 1)}))
    assert set(selected_parameters(model, RWalkConfig(include=("head.*",)))) == {"head.weight", "head.bias"}


def test_patterns_that_select_nothing_are_refused_and_named():
    model = tanh_net()
    with pytest.raises(RWalkError, match=r"include=\('decoder\.\*',\)"):
        RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), RWalkConfig(include=("decoder.*",)))
