"""PEFT's adapters: what they cost, and names that hold through saving, loading, merging, adding and switching."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import TrainerCallback

from integrations.trainers import StopAfter, classifier, labelled, language_model, sentences, trainer
from reference.problems import assert_same, assert_same_state, weights
from rwalk import RWalk, RWalkConfig, RWalkError
from rwalk.integrations.several import RWalkGroup
from rwalk.integrations.transformers import RWalkTrainerCallback

CONFIG = RWalkConfig(ewc_lambda=5.0, ewc_alpha=0.3, delta_t=3)
EVERY_FOUR = {"save_strategy": "steps", "save_steps": 4, "logging_strategy": "steps", "logging_steps": 1}

# peft 0.21 asks models for what transformers 5.23 calls by another name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def lora(model, **options):
    torch.manual_seed(1)
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"], **options))


def bert_lora():
    """With the classifier as a module that is trained whole (``modules_to_save``)."""
    torch.manual_seed(1)
    return get_peft_model(classifier(), LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"]))


def trainable(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def learned(model, folder, data, callback=None, **options):
    callback = RWalkTrainerCallback(CONFIG) if callback is None else callback
    trainer(model, folder, data, callback, **options).train()
    return callback


def floats_held(rwalk):
    """How many elements all tensors of a core have, those that are used only within a step among them."""
    return sum(tensor.numel() for bucket in rwalk._tracker.buckets for tensor in bucket.flat.values())


@pytest.mark.parametrize("build", [lambda: lora(language_model()), bert_lora])
def test_only_trainable_weights_cost_anything(tmp_path, build):
    model = build()
    data = sentences(0) if "lm_head" in str(model) else labelled(0)
    callback = learned(model, tmp_path, data)
    learned(model, tmp_path, data, callback)
    count = sum(value.numel() for value in trainable(model).values())
    assert set(callback.rwalk.importances()) == set(trainable(model))
    assert 0 < floats_held(callback.rwalk) <= 8 * count
    callback.rwalk.save(tmp_path / "state.safetensors")
    assert (tmp_path / "state.safetensors").stat().st_size <= 4 * 8 * count + 16_000  # names and settings


def test_frozen_weights_stay_as_they_are(tmp_path):
    model = lora(language_model())
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    callback = learned(model, tmp_path, sentences(0))
    learned(model, tmp_path, sentences(1), callback)
    assert_same({name: p for name, p in weights(model).items() if name in frozen}, frozen)
    assert callback.rwalk.tasks == 2


def test_a_module_that_is_trained_whole_is_protected(tmp_path):
    found = learned(bert_lora(), tmp_path, labelled(0)).rwalk.importances()
    head = {name for name in found if "modules_to_save" in name}
    assert {name.rpartition(".")[2] for name in head} == {"weight", "bias"}
    assert all(found[name].any() for name in head)
    assert not any("original_module" in name for name in found)


def test_an_adapter_saved_and_loaded_keeps_its_importances(tmp_path):
    model, together = lora(language_model()), RWalkTrainerCallback(CONFIG)
    learned(model, tmp_path, sentences(0), together)
    model.save_pretrained(tmp_path / "adapter")
    together.rwalk.save(tmp_path / "state.safetensors")
    learned(model, tmp_path, sentences(1), together)

    loaded = PeftModel.from_pretrained(language_model(), tmp_path / "adapter", is_trainable=True)
    apart = learned(loaded, tmp_path, sentences(1), RWalkTrainerCallback(start_from=tmp_path / "state.safetensors"))
    assert_same(trainable(loaded), trainable(model))
    assert_same_state(apart.rwalk.state_dict(), together.rwalk.state_dict())


def test_an_adapter_merged_for_a_while_is_the_same_afterwards(tmp_path):
    model = lora(language_model())
    callback = learned(model, tmp_path, sentences(0))
    before = callback.rwalk.importances()
    model.merge_adapter()
    assert set(before) <= set(weights(model))
    model.unmerge_adapter()
    learned(model, tmp_path, sentences(0), callback)
    assert set(callback.rwalk.importances()) == set(before)


def test_a_model_that_an_adapter_was_merged_into_for_good_needs_a_new_rwalk(tmp_path):
    model = lora(language_model())
    callback = learned(model, tmp_path, sentences(0))
    merged = model.merge_and_unload().requires_grad_(requires_grad=True)
    with pytest.raises(RWalkError, match=r"no longer has .*lora_A\.default.*start a new RWalk"):
        learned(merged, tmp_path, sentences(1), callback)
    assert learned(merged, tmp_path, sentences(1)).rwalk.tasks == 1


def deleted(model):
    model.delete_adapter("default")
    model.add_adapter("default", LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"]))
    model.set_adapter("default")
    return model


@pytest.mark.parametrize(
    "successor",
    [
        lambda model: lora(model.merge_and_unload()),
        lambda model: lora(model.merge_and_unload(), init_lora_weights=False),
        lambda model: lora(model.unload()),
        deleted,
    ],
    ids=["merged", "merged, begun at random", "unloaded", "deleted"],
)
def test_a_new_adapter_of_the_same_name_is_not_held_where_the_old_one_was(tmp_path, caplog, successor):
    model = lora(language_model())
    callback = learned(model, tmp_path, sentences(0))
    again = successor(model)
    alone = RWalkTrainerCallback(CONFIG)
    twin = lora(language_model())
    twin.load_state_dict(again.state_dict())
    with caplog.at_level("WARNING", logger="rwalk"):
        learned(again, tmp_path, sentences(1), callback)
    assert "adapter 'default' was merged or removed" in caplog.text
    learned(twin, tmp_path, sentences(1), alone)
    assert_same(trainable(again), trainable(twin))
    assert_same_state(callback.rwalk.state_dict(), alone.rwalk.state_dict())


def test_a_group_too_does_not_hold_a_new_adapter_where_the_old_one_was():
    model, group = lora(language_model()), RWalkGroup(CONFIG)
    penalties = []
    for _ in range(2):
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        group.attach(model, [optimizer])
        penalties.append(float(group.rwalks[0].penalty()))
        for row in sentences(0, 4):
            model(input_ids=row["input_ids"][None], labels=row["labels"][None]).loss.backward()
            optimizer.step()
        group.consolidate()
        model = lora(model.merge_and_unload(), init_lora_weights=False)
    assert penalties == [0.0, 0.0]
    assert group.rwalks[0].tasks == 1


def test_what_is_trained_whole_stays_protected_when_the_adapter_is_merged(tmp_path):
    model = bert_lora()
    callback = learned(model, tmp_path, labelled(0))
    before = callback.rwalk.anchors()
    torch.manual_seed(2)
    config = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    again = get_peft_model(model.merge_and_unload(), config)
    learned(again, tmp_path, labelled(1), callback, max_steps=1, learning_rate=0.0)
    found, head = callback.rwalk.anchors(), {name for name in before if "modules_to_save" in name}
    assert head
    assert_same({name: found[name] for name in head}, {name: before[name] for name in head})
    assert callback.rwalk.tasks == 2


def test_an_adapter_loaded_again_by_the_same_callback_goes_on(tmp_path, caplog):
    model = lora(language_model())
    callback = learned(model, tmp_path, sentences(0))
    before = callback.rwalk
    model.save_pretrained(tmp_path / "adapter")
    model.merge_adapter()  # as for an evaluation
    loaded = PeftModel.from_pretrained(language_model(), tmp_path / "adapter", is_trainable=True)
    with caplog.at_level("WARNING", logger="rwalk"):
        learned(loaded, tmp_path, sentences(1), callback)
    assert "merged or removed" not in caplog.text
    assert callback.rwalk is before
    assert callback.rwalk.tasks == 2


def second_adapter(model):
    """Another adapter, which is trained from now on; the first is frozen."""
    model.add_adapter("second", LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"]))
    model.set_adapter("second")


def test_a_second_adapter_leaves_the_firsts_weights_and_fisher_alone(tmp_path):
    model = lora(language_model())
    callback = learned(model, tmp_path, sentences(0))
    values, fisher = trainable(model), callback.rwalk.importances("fisher")
    second_adapter(model)
    learned(model, tmp_path, sentences(1), callback)
    assert set(trainable(model)) == {name.replace("default", "second") for name in values}
    found = callback.rwalk.importances("fisher")
    assert set(found) == {*values, *trainable(model)}
    assert_same({name: found[name] for name in fisher}, fisher)
    assert_same({name: weights(model)[name] for name in values}, values)
    assert all(found[name].any() for name in trainable(model))


def test_the_first_adapter_is_held_where_its_task_ended_when_it_is_trained_again(tmp_path):
    moved = {}
    for strength in (0.0, 1e4):
        model = lora(language_model(dropout=0.0))
        callback = RWalkTrainerCallback(CONFIG.replace(ewc_lambda=strength, penalty="proximal"))
        learned(model, tmp_path, sentences(0), callback)
        ended = trainable(model)
        second_adapter(model)
        learned(model, tmp_path, sentences(1), callback)
        model.set_adapter("default")
        importances = callback.rwalk.importances()
        learned(model, tmp_path, sentences(2), callback)
        moved[strength] = sum(
            (importances[name] * (value - ended[name]).square()).sum() for name, value in trainable(model).items()
        )
        assert callback.rwalk.tasks == 3
    assert moved[1e4] < 0.1 * moved[0.0]


def test_an_adapter_is_resumed_in_mid_task(tmp_path):
    def second_task(folder, *callbacks):
        model = PeftModel.from_pretrained(language_model(), tmp_path / "adapter", is_trainable=True)
        callback = RWalkTrainerCallback(start_from=tmp_path / "state.safetensors")
        return trainer(model, folder, sentences(1), callback, *callbacks, **EVERY_FOUR), callback

    model = lora(language_model(), lora_dropout=0.1)
    learned(model, tmp_path, sentences(0)).rwalk.save(tmp_path / "state.safetensors")
    model.save_pretrained(tmp_path / "adapter")
    whole, expected = second_task(tmp_path / "whole")
    whole.train()
    killed, _ = second_task(tmp_path / "killed", StopAfter(5))
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed, found = second_task(tmp_path / "killed")
    resumed.train(resume_from_checkpoint=True)
    assert_same(trainable(resumed.model), trainable(whole.model))
    assert_same_state(found.rwalk.state_dict(), expected.rwalk.state_dict())


def test_the_best_adapter_is_the_anchor(tmp_path):
    class WorseAfterFour(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **kwargs):
            metrics["eval_loss"] = abs(state.global_step - 4)

    model, callback = lora(language_model()), RWalkTrainerCallback(CONFIG)
    data = sentences(0)
    options = {"eval_strategy": "steps", "eval_steps": 4, "eval_dataset": data[:4], "load_best_model_at_end": True}
    framework = trainer(model, tmp_path, data, callback, WorseAfterFour(), **EVERY_FOUR, **options)
    framework.train()
    assert Path(framework.state.best_model_checkpoint).name == "checkpoint-4"
    state = callback.rwalk.state_dict()
    assert (state["steps"], state["tasks"]) == (4, 1)
    assert_same({name: values["anchor"] for name, values in state["parameters"].items()}, trainable(model))
    assert set(trainable(model)) == set(state["parameters"])


def test_two_lines_are_enough_in_a_loop_of_your_own():
    model = lora(language_model(dropout=0.0))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    rwalk = RWalk(model, optimizer, CONFIG)
    for sample in sentences(0, samples=6):
        model(**{key: value[None] for key, value in sample.items()}).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    rwalk.consolidate()
    assert set(rwalk.importances()) == set(trainable(model))
