"""RWalk in real Trainer runs: the same training as a plain loop, in which moments, on which gradient."""

import logging
from itertools import cycle

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback
from transformers.optimization import get_linear_schedule_with_warmup

from integrations.trainers import LENGTH, arguments, classifier, labelled, language_model, sentences, trainer
from reference.problems import assert_same, assert_same_state, weights
from rwalk import RWalk, RWalkConfig
from rwalk.integrations.transformers import RWalkTrainerCallback

CONFIG = RWalkConfig(ewc_lambda=5.0, ewc_alpha=0.3, delta_t=3)


def plain_loop(model, data, rwalk, *, accumulation, max_norm):
    """What Trainer does with its defaults: AdamW, a linear schedule, clipping; the loss is a step's mean of tokens."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, 8 // accumulation)
    if rwalk is None:
        rwalk = RWalk(model, optimizer, CONFIG)
    else:
        rwalk.attach(optimizer)
    model.train()
    for index in range(8):
        batch = data[4 * index : 4 * index + 4]
        inputs = {key: torch.stack([sample[key] for sample in batch]) for key in batch[0]}
        model(**inputs, num_items_in_batch=4 * accumulation * (LENGTH - 1)).loss.backward()
        if (index + 1) % accumulation == 0:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    rwalk.consolidate()
    rwalk.detach()
    return rwalk


@pytest.mark.parametrize("accumulation", [1, 4])
def test_two_trainings_are_a_plain_loops(tmp_path, accumulation):
    ours, theirs = language_model(dropout=0.0), language_model(dropout=0.0)
    callback, reference = RWalkTrainerCallback(CONFIG), None
    for task in (0, 1):
        data = sentences(task)
        trainer(ours, tmp_path, data, callback, gradient_accumulation_steps=accumulation, max_grad_norm=0.5).train()
        reference = plain_loop(theirs, data, reference, accumulation=accumulation, max_norm=0.5)
    assert callback.rwalk.steps == reference.steps == 16 // accumulation
    compared = [(weights(ours), weights(theirs))]
    compared += [(callback.rwalk.importances(kind), reference.importances(kind)) for kind in ("fisher", "penalty")]
    for found, expected in compared:
        for name, value in expected.items():
            assert (found[name] - value).norm() <= 1e-5 * value.norm(), name


def test_the_fisher_sees_the_clipped_gradient_and_the_penalty_is_not_clipped(tmp_path):
    model, callback = classifier(), RWalkTrainerCallback(CONFIG.replace(ewc_lambda=1e4))
    trainer(model, tmp_path, labelled(0), callback, max_grad_norm=1e-3).train()
    norms = []

    class Look(TrainerCallback):
        def on_optimizer_step(self, args, state, control, **kwargs):
            norms.append(nn.utils.get_total_norm([p.grad for p in kwargs["model"].parameters()]).item())

    trainer(model, tmp_path, labelled(1), callback, Look(), max_grad_norm=1e-3).train()
    summed = sum(value.sum() for value in callback.rwalk.importances("fisher").values())
    assert summed.item() <= 1e-3**2 * 1.01
    assert max(norms) > 1.0


def test_without_a_penalty_trainer_trains_as_it_does_without_rwalk(tmp_path):
    alone, watched = language_model(), language_model()
    for task in (0, 1):
        trainer(alone, tmp_path, sentences(task)).train()
    callback = RWalkTrainerCallback(CONFIG.replace(ewc_lambda=0.0))
    for task in (0, 1):
        trainer(watched, tmp_path, sentences(task), callback).train()
    assert_same(weights(watched), weights(alone))
    assert callback.rwalk.tasks == 2


def test_the_callback_lets_go_when_training_ends(tmp_path):
    model, callback = classifier(), RWalkTrainerCallback(CONFIG)
    first = trainer(model, tmp_path, labelled(0), callback)
    first.train()
    assert not callback.rwalk.attached
    assert (callback.rwalk.tasks, callback.rwalk.steps, callback.rwalk.task_steps) == (1, 8, 0)
    first.train()  # the same Trainer once more: another task
    assert (callback.rwalk.tasks, callback.rwalk.steps) == (2, 16)


def test_a_training_that_was_interrupted_goes_on_in_another(tmp_path):
    class Stop(TrainerCallback):
        def on_substep_end(self, args, state, control, **kwargs):
            if state.global_step == 1:
                raise KeyboardInterrupt

    model, callback = classifier(), RWalkTrainerCallback(CONFIG)
    with pytest.raises(KeyboardInterrupt):
        trainer(model, tmp_path, labelled(0), callback, Stop(), gradient_accumulation_steps=2).train()
    assert callback.rwalk.attached
    trainer(model, tmp_path, labelled(0), callback).train()
    assert (callback.rwalk.tasks, callback.rwalk.steps) == (1, 1 + 8)


@pytest.mark.parametrize(("moment", "tasks"), [("train_end", 1), ("epoch_end", 2), (3, 5), (16, 1), (17, 0), (None, 0)])
def test_a_task_ends_when_it_is_said_to(tmp_path, moment, tasks):
    callback = RWalkTrainerCallback(CONFIG, consolidate_on=moment)
    trainer(classifier(), tmp_path, labelled(0), callback, num_train_epochs=2).train()
    assert (callback.rwalk.tasks, callback.rwalk.steps) == (tasks, 16)


def test_a_task_ends_when_you_say_so(tmp_path):
    class Signal(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                callback.rwalk.consolidate()
                self.anchor = weights(kwargs["model"])

    callback, signal = RWalkTrainerCallback(CONFIG, consolidate_on=None), Signal()
    trainer(classifier(), tmp_path, labelled(0), callback, signal).train()
    state = callback.rwalk.state_dict()
    assert (state["tasks"], state["task_steps"]) == (1, 3)
    assert_same({name: values["anchor"] for name, values in state["parameters"].items()}, signal.anchor)


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "sgd"])
def test_a_step_that_the_scaler_skips_leaves_no_trace(tmp_path, optim):
    """fp16 on a GPU, as far as a CPU has it: Accelerate's own optimizer wrapper, with a GradScaler."""
    model, callback, backwards = classifier(), RWalkTrainerCallback(CONFIG), []

    def overflow_once(gradient):
        backwards.append(gradient)
        return gradient * float("inf") if len(backwards) == 3 else gradient

    model.classifier.weight.register_hook(overflow_once)
    framework = trainer(model, tmp_path, labelled(0), callback, optim=optim)
    framework.accelerator.state._mixed_precision, framework.accelerator.native_amp = "fp16", True
    framework.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    framework.train()
    assert framework.accelerator.scaler.get_scale() == 2.0**3
    assert (len(backwards), callback.rwalk.steps) == (8, 7)
    assert all(value.isfinite().all() for value in callback.rwalk.importances("score").values())


class LeavesOut(TrainerCallback):
    """The usual guard: a batch whose gradient is not finite is left out."""

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        gradients = [p.grad for p in kwargs["model"].parameters()]
        if not all(gradient.isfinite().all() for gradient in gradients):
            kwargs["model"].zero_grad()


class Careful(torch.optim.SGD):
    """Moves no weight by a gradient that is not finite."""

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            parameter.sub_(parameter.grad.nan_to_num(0.0, 0.0, 0.0), alpha=self.param_groups[0]["lr"])


@pytest.mark.parametrize("bad", [1, 3])
@pytest.mark.parametrize("guard", [[LeavesOut()], []], ids=["left out", "not counted"])
def test_a_step_whose_gradient_does_not_count_does_not_stop_training(tmp_path, guard, bad):
    model, callback, backwards = classifier(), RWalkTrainerCallback(CONFIG), []

    def overflow_once(gradient):
        backwards.append(gradient)
        return gradient * float("inf") if len(backwards) == bad else gradient

    model.classifier.bias.register_hook(overflow_once)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01) if guard else Careful(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    options = {"optimizers": (optimizer, schedule), "max_grad_norm": 0.0}
    framework = trainer(model, tmp_path, labelled(0), *guard, callback, **options)
    framework.train()
    assert framework.state.global_step == 8
    assert (callback.rwalk.tasks, callback.rwalk.steps) == (1, 7)


def test_batches_that_go_through_another_head_are_no_steps_of_what_is_protected(tmp_path):
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.turn = classifier(), 0
            self.first, self.second = nn.Linear(8, 2), nn.Linear(8, 2)

        def forward(self, input_ids, labels=None):
            self.turn += 1
            head = self.second if self.turn % 2 else self.first
            logits = head(self.body.bert(input_ids).pooler_output)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    callback = RWalkTrainerCallback(CONFIG.replace(include=("first.*",)))
    trainer(TwoHeads(), tmp_path, labelled(0), callback).train()
    assert (callback.rwalk.tasks, callback.rwalk.steps) == (1, 4)


SCHEDULE_FREE = {"optim": "schedule_free_sgd", "lr_scheduler_type": "constant"}


@pytest.mark.parametrize("unfinished", ["flush", "drop"])
@pytest.mark.parametrize("moment", ["train_end", "epoch_end", 4])
def test_evaluating_and_saving_under_a_schedule_free_optimizer_change_no_score(tmp_path, moment, unfinished):
    """Its averaged weights are in place from an evaluation until the next step."""
    pytest.importorskip("schedulefree")
    by_steps = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 4}
    logged = {"logging_strategy": "steps", "logging_steps": 1}
    scores, anchors = [], []
    config = CONFIG.replace(ewc_lambda=0.0, delta_t=5, unfinished=unfinished)
    for options in ({}, by_steps, {**by_steps, **logged}):
        model = classifier().double()
        callback = RWalkTrainerCallback(config, consolidate_on=moment, log=bool(logged.keys() & options.keys()))
        data, own = labelled(0), {"eval_dataset": labelled(0)[:4]}
        trainer(model, tmp_path, data, callback, num_train_epochs=2, **SCHEDULE_FREE, **own, **options).train()
        state = callback.rwalk.state_dict()["parameters"]
        scores.append({name: values["score"] for name, values in state.items()})
        anchors.append({name: values["anchor"] for name, values in state.items()})
        if moment == "train_end":  # what is left, averaged or not
            assert_same(anchors[-1], weights(model))
    for found, expected in [(scores[1], scores[0]), (scores[2], scores[0])]:
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0.0, atol=1e-6 * float(value.max()) + 1e-30)
    if moment != "train_end":  # where the steps have led
        for name, value in anchors[0].items():
            torch.testing.assert_close(anchors[1][name], value, rtol=1e-9, atol=1e-12)


def test_saving_under_a_schedule_free_optimizer_leaves_the_weights_as_they_were(tmp_path):
    pytest.importorskip("schedulefree")
    by_steps = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    trained = []
    for callbacks in ([], [RWalkTrainerCallback(CONFIG.replace(ewc_lambda=0.0), log=True)]):
        model, own = classifier(), {"eval_dataset": labelled(0)[:4]}
        trainer(model, tmp_path, labelled(0), *callbacks, **SCHEDULE_FREE, **own, **by_steps).train()
        trained.append(weights(model))
    assert_same(*trained)


def test_bf16_autocast_leaves_the_state_in_float32(tmp_path):
    seen = []
    model, callback = classifier(), RWalkTrainerCallback(CONFIG)
    model.bert.pooler.dense.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    trainer(model, tmp_path, labelled(0), callback, bf16=True).train()
    assert set(seen) == {torch.bfloat16}
    assert {value.dtype for value in callback.rwalk.importances().values()} == {torch.float32}


def test_a_subclass_with_its_own_loss_is_followed_alike(tmp_path):
    class Doubled(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            return 2 * model(**inputs).loss

    fishers = []
    for cls in (Trainer, Doubled):
        callback = RWalkTrainerCallback(CONFIG)
        options = arguments(tmp_path, max_steps=1, max_grad_norm=0.0)
        cls(classifier(), options, train_dataset=labelled(0), callbacks=[callback]).train()
        fishers.append(callback.rwalk.importances("fisher"))
    for name, value in fishers[0].items():
        torch.testing.assert_close(fishers[1][name], 4 * value)


def test_shared_weights_are_protected_once(tmp_path):
    model, callback = language_model(), RWalkTrainerCallback(CONFIG)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    trainer(model, tmp_path, sentences(0), callback).train()
    names = set(callback.rwalk.importances())
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    assert names == set(dict(model.named_parameters()))


def test_parameters_that_are_frozen_cost_nothing(tmp_path):
    model, callback = classifier(), RWalkTrainerCallback(CONFIG)
    model.bert.requires_grad_(requires_grad=False)
    trainer(model, tmp_path, labelled(0), callback).train()
    assert set(callback.rwalk.importances()) == {"classifier.weight", "classifier.bias"}


def test_the_fisher_can_come_from_a_pass_over_the_tasks_data(tmp_path):
    for model, data in ((classifier(), labelled(0)), (language_model().eval(), sentences(0))):
        callback = RWalkTrainerCallback(RWalkConfig.facil())
        trainer(model, tmp_path, data, callback).train()
        assert callback.rwalk.tasks == 1
        assert all(value.any() for value in callback.rwalk.importances("fisher").values())


class Endless(IterableDataset):
    """The task's samples, over and over."""

    def __iter__(self):
        for number, sample in enumerate(cycle(labelled(0))):
            if number == 500:
                raise RuntimeError("read far more than was trained")
            yield sample


@pytest.mark.parametrize("moment", ["train_end", "epoch_end"])
@pytest.mark.parametrize("config", [RWalkConfig.facil(), RWalkConfig.laplace(fisher_samples=1000)])
def test_a_task_without_an_end_is_as_long_as_it_was_trained(tmp_path, config, moment):
    found = []
    for data in (Endless(), labelled(0)[:12]):
        model, callback = classifier(), RWalkTrainerCallback(config, consolidate_on=moment)
        trainer(model, tmp_path, data, callback, max_steps=3).train()
        assert (callback.rwalk.tasks, callback.rwalk.steps) == (1, 3)
        found.append(callback.rwalk.importances())
    assert_same(*found)


@pytest.mark.parametrize("returned", [lambda loss, logits: {"loss": loss, "logits": logits}, lambda *both: both])
def test_the_fisher_of_a_pass_takes_what_trainer_takes_from_a_model(tmp_path, returned):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = classifier()

        def forward(self, input_ids, labels):
            found = self.inner(input_ids, labels=labels)
            return returned(found.loss, found.logits)

    found = []
    for model in (classifier(), Plain()):
        callback = RWalkTrainerCallback(RWalkConfig.facil())
        trainer(model, tmp_path, labelled(0), callback).train()
        found.append({name.removeprefix("inner."): v for name, v in callback.rwalk.importances().items()})
    assert_same(*found)


def test_figures_go_into_the_log_if_asked_for(tmp_path):
    silent, speaking = RWalkTrainerCallback(CONFIG), RWalkTrainerCallback(CONFIG, log=True)
    printed = []

    class Reporter(TrainerCallback):
        def on_log(self, args, state, control, **kwargs):
            printed.append(dict(kwargs["logs"]))

    for callback in (silent, speaking):
        model = classifier()
        trainer(model, tmp_path, labelled(0), callback).train()
        framework = trainer(
            model, tmp_path, labelled(1), callback, Reporter(), logging_strategy="steps", logging_steps=4
        )
        framework.train()
        history = framework.state.log_history
        assert len(history) == 3
        assert all(("rwalk/penalty" in entry) is (callback is speaking) for entry in [*history, *printed[-3:]])
    assert history[0]["rwalk/penalty"] > 0
    assert history[0]["rwalk/tasks"] == 1


def test_no_forward_or_backward_is_added(tmp_path):
    model, passes = classifier(), []
    model.register_forward_hook(lambda *_: passes.append("forward"))
    model.classifier.weight.register_hook(lambda gradient: passes.append("backward"))
    trainer(model, tmp_path, labelled(0), RWalkTrainerCallback(CONFIG)).train()
    assert passes == ["forward", "backward"] * 8


def test_a_training_without_a_step_ends_no_task(tmp_path, caplog):
    callback = RWalkTrainerCallback(CONFIG)
    with caplog.at_level(logging.WARNING, logger="rwalk"):
        trainer(classifier(), tmp_path, labelled(0), callback, num_train_epochs=0).train()
    assert callback.rwalk.tasks == 0
    assert "nothing changes" in caplog.text


def test_trainings_with_the_callback_are_reproducible(tmp_path):
    states = []
    for _ in range(2):
        model, callback = language_model(), RWalkTrainerCallback(CONFIG)
        for task in (0, 1):
            trainer(model, tmp_path, sentences(task), callback, shuffles=True).train()
        states.append(callback.rwalk.state_dict())
    assert_same_state(*states)
