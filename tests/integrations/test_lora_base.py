"""LoRA protecting its base: the change s·B·A of each adapted weight is weighed by the base's Fisher, in closed form."""

import copy
import logging

import pytest
import torch
from peft import LoraConfig, PeftModel, inject_adapter_in_model
from transformers import GPT2Config, GPT2LMHeadModel

from integrations.lora_toys import Mixed, adam, lora, mixed, sgd, some, train
from integrations.trainers import classifier, language_model
from rwalk import RWalk, RWalkConfig, RWalkError
from rwalk.core.low_rank import factor
from rwalk.integrations.peft import BaseProtection, is_peft

# peft 0.21 asks models for what transformers 5.23 calls by another name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

FORMS = ("factored", "whole")


def base_weights(model):
    """The base's adapted weights, by the base's names, without adapters."""
    with torch.no_grad():
        plain = copy.deepcopy(model).unload()
    return {name: p.detach().clone() for name, p in plain.named_parameters()}


def effective_weights(model):
    plain = copy.deepcopy(model).merge_and_unload()
    return {name: p.detach() for name, p in plain.named_parameters()}


def naive(protection, anchors, model):
    """The penalty from weights with adapters merged into a copy."""
    now = effective_weights(model)
    terms = [(w * (now[name] - anchors[name]).square()).sum() for name, w in protection.importances().items()]
    return protection.ewc_lambda * torch.stack(terms).sum()


@pytest.mark.parametrize("form", FORMS)
def test_the_penalty_is_that_of_the_weights_that_the_model_would_have_merged(form):
    model = mixed()
    anchors, optimizer = base_weights(model), adam(model)
    protection = BaseProtection(model, optimizer, 0.7, importance=form)
    protection.protect([some()])
    assert set(protection.importances()) == {"tokens.weight", "mix.weight", "hidden.weight", "head.weight"}
    assert protection.penalty().item() == 0.0
    train(model, optimizer)
    torch.testing.assert_close(protection.penalty().detach(), naive(protection, anchors, model), rtol=1e-10, atol=0.0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", [{}, {"use_rslora": True}])
def test_a_step_adds_the_gradient_of_the_penalty(form, options):
    model = mixed(**options)
    optimizer = sgd(model)
    protection = BaseProtection(model, optimizer, 0.7, importance=form)
    protection.protect([some()])
    train(model, optimizer)
    moving = [p for p in model.parameters() if p.requires_grad]
    expected = torch.autograd.grad(protection.penalty(), moving)
    before = [p.detach().clone() for p in moving]
    optimizer.zero_grad()
    model(some(1)).square().sum().backward()
    plain = [p.grad.clone() for p in moving]
    optimizer.step()
    for p, gradient, own, start in zip(moving, plain, expected, before, strict=True):
        torch.testing.assert_close(p.grad, gradient + own, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(p.detach(), start - 1e-2 * p.grad)


def test_importances_are_the_fisher_of_the_base_and_have_mean_1():
    """RWalk.protect on the base by itself finds the same, whatever the adapter is."""
    model = mixed(init_lora_weights=False)  # an adapter that changes what the model says
    base = copy.deepcopy(model).unload().requires_grad_(requires_grad=True)
    rwalk = RWalk(base, sgd(base), RWalkConfig(), attach=False)
    rwalk.protect([some(), some(1)])
    fisher = rwalk.importances("fisher")
    protection = BaseProtection(model, sgd(model), importance="whole")
    assert protection.protect([some(), some(1)]).samples == 12
    found = protection.importances()
    mean = sum(fisher[name].sum() for name in found) / sum(value.numel() for value in found.values())
    for name, value in found.items():
        torch.testing.assert_close(value, fisher[name] / mean)


def test_a_factored_importance_is_the_factored_whole_one():
    found = {}
    for form in FORMS:
        model = mixed()
        protection = BaseProtection(model, sgd(model), importance=form)
        protection.protect([some()])
        found[form] = protection.importances()
    for name, whole in found["whole"].items():
        row, column = factor(whole.mT if name == "tokens.weight" else whole.flatten(1))
        product = row.unsqueeze(1) * column
        expected = product.mT if name == "tokens.weight" else product.view(whole.shape)
        torch.testing.assert_close(found["factored"][name], expected)


def test_language_models_with_conv1d_and_linear_layers():
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}
    gpt2 = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)).double()
    for base, modules in ((gpt2, ["c_attn", "c_proj"]), (language_model().double(), "all-linear")):
        model = lora(base, modules, task_type="CAUSAL_LM", fan_in_fan_out=isinstance(base, GPT2LMHeadModel))
        anchors, optimizer = base_weights(model), adam(model)
        protection = BaseProtection(model, optimizer, importance="whole")
        tokens = torch.randint(0, 20, (4, 6))
        done = protection.protect([{"input_ids": tokens, "labels": tokens}])
        assert (done.samples, done.likelihood) == (4, "categorical")
        assert all(name.startswith(("transformer.h.", "model.layers.")) for name in protection.importances())
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        assert protection.penalty().item() > 0
        torch.testing.assert_close(
            protection.penalty().detach(), naive(protection, anchors, model), rtol=1e-9, atol=0.0
        )


def test_flags_modes_buffers_and_gradients_are_as_they_were():
    model = lora(classifier(), ["query", "value"], task_type="SEQ_CLS").train()
    model.base_model.model.bert.pooler.train(mode=False)
    next(p for n, p in model.named_parameters() if "lora_A" in n).requires_grad_(requires_grad=False)
    protection = BaseProtection(model, sgd(model))

    def state():
        flags = {name: (p.requires_grad, p.grad is None) for name, p in model.named_parameters()}
        return flags, [(m.training, getattr(m, "disable_adapters", None)) for m in model.modules()]

    before = state()
    protection.protect([{"input_ids": some() % 12, "attention_mask": torch.ones(6, 5)}])
    assert state() == before
    with pytest.raises(RWalkError, match="no samples"):
        protection.protect([])
    assert state() == before


@pytest.mark.parametrize("form", FORMS)
def test_after_a_merge_the_change_is_counted_from_the_protected_base(form, tmp_path):
    model = mixed()
    anchors, optimizer = base_weights(model), adam(model)
    protection = BaseProtection(model, optimizer, 2.0, importance=form)
    protection.protect([some()])
    train(model, optimizer)
    once = protection.penalty().item()
    for rank in (3, 1):
        protection.detach()
        model = lora(model.merge_and_unload(), ["tokens", "mix", "hidden", "head"], r=rank)
        optimizer = adam(model)
        protection.follow(model, optimizer)
        assert protection.penalty().item() == pytest.approx(once, rel=1e-10)
        protection.attach()
        train(model, optimizer, seed=50)
        torch.testing.assert_close(
            protection.penalty().detach(), naive(protection, anchors, model), rtol=1e-8, atol=0.0
        )
        once = protection.penalty().item()
    protection.save(tmp_path / "base.safetensors")
    protection.detach()
    loaded = BaseProtection.load(tmp_path / "base.safetensors", model, optimizer)
    assert loaded.penalty().item() == pytest.approx(once, rel=1e-10)
    assert loaded.ewc_lambda == 2.0


@pytest.mark.parametrize("form", FORMS)
def test_several_tasks_are_held_each_where_it_was_protected(form):
    model = mixed()
    optimizer = adam(model)
    first = BaseProtection(model, optimizer, importance=form)
    first.protect([some()])
    start, train_importances = base_weights(model), first.importances()
    train(model, optimizer)
    first.detach()
    model = lora(model.merge_and_unload(), ["tokens", "mix", "hidden", "head"])
    optimizer = adam(model)
    first.follow(model, optimizer)
    middle = base_weights(model)
    alone = BaseProtection(model, optimizer, importance=form, attach=False)
    alone.protect([some(1)])
    first.protect([some(1)])
    assert (first.tasks, alone.tasks) == (2, 1)
    first.attach()
    train(model, optimizer, seed=30)
    now = effective_weights(model)
    expected = sum(
        (w * (now[name] - anchors[name]).square()).sum()
        for importances, anchors in ((train_importances, start), (alone.importances(), middle))
        for name, w in importances.items()
    )
    torch.testing.assert_close(first.penalty().detach(), expected, rtol=1e-8, atol=0.0)
    moving = [p for p in model.parameters() if p.requires_grad]
    own = torch.autograd.grad(first.penalty(), moving)
    for p in moving:
        p.grad = torch.zeros_like(p)
    first.before_step()
    for p, gradient in zip(moving, own, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-9, atol=1e-10)


def test_protected_twice_in_one_place_importances_add_up_or_are_replaced():
    model = mixed()
    both, one = (BaseProtection(model, sgd(model), importance="whole", attach=False) for _ in range(2))
    both.protect([some()])
    both.protect([some(1)])
    one.protect([some()])
    held = one.importances()
    one.protect([some(1)], combine="replace")
    for name, value in both.importances().items():
        torch.testing.assert_close(value, held[name] + one.importances()[name])


def test_only_adapters_that_are_on_count_and_all_of_them_together():
    model = mixed()
    model.add_adapter("second", LoraConfig(r=3, target_modules=["hidden"], init_lora_weights=False))
    anchors = base_weights(model)
    protection = BaseProtection(model, sgd(model), attach=False)
    protection.protect([some()])
    assert protection.penalty().item() == 0.0
    model.set_adapter("second")
    of_second = protection.penalty().item()
    assert of_second == pytest.approx(float(naive(protection, anchors, model)), rel=1e-10)
    model.base_model.set_adapter(["default", "second"])
    for name, p in model.named_parameters():
        if "lora_B.default" in name:
            p.data.fill_(0.1)
    assert protection.penalty().item() == pytest.approx(float(naive(protection, anchors, model)), rel=1e-10)
    with model.disable_adapter():
        assert protection.penalty().item() == 0.0


def test_without_peft_model_around_it():
    torch.manual_seed(0)
    model = inject_adapter_in_model(LoraConfig(r=2, target_modules=["hidden"]), Mixed())
    assert is_peft(model)
    assert not is_peft(Mixed())
    protection = BaseProtection(model, sgd(model))
    protection.protect([some()])
    assert list(protection.importances()) == ["hidden.weight"]


@pytest.mark.parametrize("scale", [8.0, torch.tensor(8.0)])
def test_under_a_grad_scaler_the_gradient_is_scaled_alike(scale):
    found = []
    for given in (None, scale):
        model = mixed()
        protection = BaseProtection(model, sgd(model), attach=False)
        protection.protect([some()])
        for p in model.parameters():
            if p.requires_grad:
                p.data.fill_(0.1)
                p.grad = torch.zeros_like(p)
        protection.before_step(grad_scale=given)
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, scaled in zip(*found, strict=True):
        assert plain.any()
        torch.testing.assert_close(scaled, 8 * plain)


def test_an_rwalk_on_the_same_optimizer_walks_by_the_losses_gradient_alone():
    states = []
    for strength in (0.0, 5.0):
        model = mixed()
        optimizer = sgd(model)
        rwalk = RWalk(model, optimizer, RWalkConfig(delta_t=1))
        protection = BaseProtection(model, optimizer, strength)
        protection.protect([some()])
        train(model, optimizer, steps=1)
        states.append(rwalk.importances("fisher"))
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value)

    protection.detach()
    rwalk.detach()
    protection.attach()
    rwalk.attach()
    with pytest.raises(RWalkError, match="attached to this optimizer after"):
        train(model, optimizer, steps=1)


def closure(model, optimizer, step):
    def loss():
        optimizer.zero_grad()
        value = model(some(step)).square().sum()
        value.backward()
        return value

    return loss


def test_a_closure_gets_the_gradient_too():
    moved = []
    for by_closure in (False, True):
        model = mixed()
        optimizer = adam(model)
        BaseProtection(model, optimizer, 3.0).protect([some()])
        for step in range(3):
            loss = closure(model, optimizer, step)
            if by_closure:
                optimizer.step(loss)
            else:
                loss()
                optimizer.step()
        moved.append([p.detach() for p in model.parameters()])
    for plain, closed in zip(*moved, strict=True):
        assert torch.equal(plain, closed)


def test_modules_trained_whole_are_named_and_an_rwalk_beside_it_holds_them(caplog):
    model = lora(classifier(), ["query"], task_type="SEQ_CLS")
    optimizer = sgd(model)
    data = [{"input_ids": some(), "attention_mask": torch.ones(6, 5)}]
    rwalk = RWalk(model, optimizer, RWalkConfig(include=("*modules_to_save*",)))
    protection = BaseProtection(model, optimizer)
    with caplog.at_level(logging.WARNING):
        protection.protect(data)
    assert "trained whole, first base_model.model.classifier.modules_to_save.default.weight" in caplog.text
    rwalk.protect(data)
    assert all("modules_to_save" in name and value.any() for name, value in rwalk.importances().items())
    model(**data[0]).logits.square().sum().backward()
    optimizer.step()
    assert protection.penalty().item() >= 0 < rwalk.penalty().item()


def test_a_state_goes_on_exactly(tmp_path):
    model = mixed()
    optimizer = adam(model)
    protection = BaseProtection(model, optimizer, 1.5)
    protection.protect([some()])
    train(model, optimizer)
    other = BaseProtection(model, adam(model), attach=False)
    other.load_state_dict(copy.deepcopy(protection.state_dict()))
    assert other.penalty().item() == protection.penalty().item()
    protection.save(tmp_path / "state.safetensors")
    model.save_pretrained(tmp_path / "adapter")

    torch.manual_seed(0)
    again = PeftModel.from_pretrained(Mixed().double(), tmp_path / "adapter", is_trainable=True)
    loaded = BaseProtection.load(tmp_path / "state.safetensors", again, adam(again))
    assert loaded.penalty().item() == protection.penalty().item()
    assert loaded.attached


def test_before_protect_a_step_is_as_without():
    plain, watched = mixed(), mixed()
    BaseProtection(watched, optimizer := adam(watched))
    train(plain, adam(plain))
    train(watched, optimizer)
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)
