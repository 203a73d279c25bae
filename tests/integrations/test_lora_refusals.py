"""LoRA protecting its base: what is refused, by name, before anything has changed."""

import math
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from integrations.lora_toys import Mixed, lora, mixed, sgd, some, train
from integrations.trainers import language_model
from rwalk import RWalkError
from rwalk.integrations.peft import BaseProtection

# peft 0.21 asks models for what transformers 5.23 calls by another name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

FORMS = ("factored", "whole")


def test_another_base_is_refused_by_name(tmp_path):
    model = mixed()
    protection = BaseProtection(model, sgd(model))
    protection.protect([some()])
    protection.save(tmp_path / "state.safetensors")
    torch.manual_seed(5)
    other = lora(Mixed().double(), ["tokens", "mix", "hidden", "head"])
    with pytest.raises(RWalkError, match=r"tokens\.weight is not where this protection knows"):
        BaseProtection.load(tmp_path / "state.safetensors", other, sgd(other))
    protection.detach()
    with pytest.raises(RWalkError, match=r"tokens\.weight is not where this protection knows"):
        protection.follow(other, sgd(other))
    assert protection.model is model
    train(model, protection.optimizer)
    merged = lora(model.merge_and_unload(), ["tokens", "mix", "hidden", "head"])
    with pytest.raises(RWalkError, match=r"follow\(model, optimizer\) was not called"):  # a new one knows no merge
        BaseProtection.load(tmp_path / "state.safetensors", merged, sgd(merged))


def test_protecting_while_an_adapter_is_merged_is_refused():
    model = mixed()
    protection = BaseProtection(model, sgd(model))
    model.merge_adapter()
    with pytest.raises(RWalkError, match=r"unmerge_adapter\(\) first"):
        protection.protect([some()])


def test_what_is_no_product_is_refused_by_name():
    def refused(model, match):
        with pytest.raises(RWalkError, match=match):
            BaseProtection(model, torch.optim.SGD(model.parameters(), lr=0.1))

    refused(Mixed(), "no LoRA adapter")
    refused(lora(Mixed(), ["hidden"], use_dora=True), r"hidden\.weight is a variant of LoRA \(D")
    refused(lora(Mixed(), ["hidden"], init_lora_weights="pissa"), "init_lora_weights='pissa'")
    if "lora_bias" in LoraConfig.__dataclass_fields__:
        refused(lora(Mixed(), ["hidden"], lora_bias=True), r"hidden\.weight has a bias")
    with warnings.catch_warnings():  # of groups, which not every PEFT gives
        warnings.simplefilter("ignore")
        grouped = lora(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), ["0"])
    refused(grouped, "in 2 groups")
    free = lora(Mixed(), ["hidden"])
    free.base_model.model.hidden.base_layer.weight.requires_grad_(requires_grad=True)
    refused(free, r"hidden\.weight is trained itself")


def test_other_adapters_than_lora_are_refused_by_name():
    peft = pytest.importorskip("peft")
    model = get_peft_model(Mixed(), peft.LoHaConfig(r=2, target_modules=["hidden"]))
    with pytest.raises(RWalkError, match=r"hidden\.weight is adapted by peft\.tuners\.loha"):
        BaseProtection(model, sgd(model))


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, True, "1"])
def test_a_strength_out_of_range_is_refused(value):
    model = mixed()
    with pytest.raises(ValueError, match="ewc_lambda="):
        BaseProtection(model, sgd(model), value)


def test_arguments_out_of_range_are_refused(tmp_path):
    model = mixed()
    with pytest.raises(ValueError, match="importance='diagonal'"):
        BaseProtection(model, sgd(model), importance="diagonal")
    with pytest.raises(TypeError, match="expected a torch"):
        BaseProtection("model", sgd(model))
    protection = BaseProtection(model, sgd(model))
    with pytest.raises(ValueError, match="combine='max'"):
        protection.protect([some()], combine="max")
    with pytest.raises(ValueError, match="labels='mine'"):
        protection.protect([some()], labels="mine")
    with pytest.raises(RWalkError, match="another BaseProtection"):
        BaseProtection(model, protection.optimizer)
    with pytest.raises(RWalkError, match="attached already"):
        protection.attach()
    with pytest.raises(RWalkError, match="detach"):
        protection.follow(model)
    with pytest.raises(ValueError, match="not the state of a BaseProtection"):
        protection.load_state_dict({"schema": 1})
    with pytest.raises(ValueError, match="'whole' and this BaseProtection 'factored'"):
        protection.load_state_dict({**protection.state_dict(), "importance": "whole"})
    with pytest.raises(FileNotFoundError):
        BaseProtection.load(tmp_path / "none.safetensors", model, sgd(model))
    (tmp_path / "text").write_text("no")
    with pytest.raises(ValueError, match="not a safetensors file"):
        BaseProtection.load(tmp_path / "text", model, sgd(model))
    assert isinstance(language_model(), PreTrainedModel)
