"""Trainer's checkpoints carry RWalk's state: resumed in mid-task, loaded back with the best model, found anywhere."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback

from integrations.trainers import StopAfter, classifier, labelled, language_model, sentences, trainer
from reference.problems import assert_same, assert_same_state, weights
from rwalk import RWalkConfig, RWalkError, inspect_state
from rwalk.integrations.transformers import RWalkTrainerCallback

CONFIG = RWalkConfig(ewc_lambda=5.0, ewc_alpha=0.3, delta_t=3)
EVERY_FOUR = {"save_strategy": "steps", "save_steps": 4, "logging_strategy": "steps", "logging_steps": 1}


@pytest.fixture
def first_day(tmp_path):
    """A model that has learned one task, and where its weights and RWalk's state are kept."""
    model, callback = language_model(), RWalkTrainerCallback(CONFIG)
    trainer(model, tmp_path / "first", sentences(0), callback).train()
    callback.rwalk.save(tmp_path / "first.safetensors")
    torch.save(model.state_dict(), tmp_path / "first.pt")
    return tmp_path / "first.safetensors", tmp_path / "first.pt"


def second_day(first_day, folder, *callbacks, **options):
    """A new process: another model object with the learned weights, and a callback that starts from the file."""
    state, learned = first_day
    model, callback = language_model(seed=9), RWalkTrainerCallback(start_from=state)
    model.load_state_dict(torch.load(learned))
    return trainer(model, folder, sentences(1), callback, *callbacks, **{**EVERY_FOUR, **options}), callback


def test_a_saved_state_goes_on_in_a_new_process(first_day, tmp_path):
    model, together = language_model(), RWalkTrainerCallback(CONFIG)
    trainer(model, tmp_path, sentences(0), together).train()
    trainer(model, tmp_path, sentences(1), together).train()
    framework, apart = second_day(first_day, tmp_path / "second")
    framework.train()
    assert apart.rwalk.config == CONFIG
    assert_same(weights(framework.model), weights(model))
    assert_same_state(apart.rwalk.state_dict(), together.rwalk.state_dict())


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_training_killed_in_mid_task_resumes_exactly(first_day, tmp_path, accumulation):
    options = {
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": accumulation,
        "lr_scheduler_type": "cosine",
    }
    whole, expected = second_day(first_day, tmp_path / "whole", **options)
    whole.train()
    killed, _ = second_day(first_day, tmp_path / "killed", StopAfter(5), **options)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed, found = second_day(first_day, tmp_path / "killed", **options)
    resumed.train(resume_from_checkpoint=True)
    assert found.rwalk.tasks == 2
    assert_same(weights(resumed.model), weights(whole.model))
    assert_same_state(found.rwalk.state_dict(), expected.rwalk.state_dict())


def test_the_same_callback_can_resume_what_was_interrupted(first_day, tmp_path):
    whole, expected = second_day(first_day, tmp_path / "whole")
    whole.train()
    killed, callback = second_day(first_day, tmp_path / "killed", StopAfter(6))
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed = trainer(killed.model, tmp_path / "killed", sentences(1), callback, **EVERY_FOUR)
    resumed.train(resume_from_checkpoint=True)
    assert_same_state(callback.rwalk.state_dict(), expected.rwalk.state_dict())


def test_a_checkpoint_elsewhere_is_gone_on_from(first_day, tmp_path):
    killed, _ = second_day(first_day, tmp_path / "here", StopAfter(5))
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    moved = shutil.move(tmp_path / "here" / "checkpoint-4", tmp_path / "moved")
    bare = shutil.copytree(moved, tmp_path / "bare", ignore=shutil.ignore_patterns("rwalk"))
    resumed, _ = second_day(first_day, tmp_path / "new")
    with pytest.raises(RWalkError, match=r"goes on from step 4, but no RWalk state.*bare or .*first\.safetensors"):
        resumed.train(resume_from_checkpoint=str(bare))
    for start_from, named in ((first_day[0], moved), (moved, bare)):
        callback = RWalkTrainerCallback(start_from=start_from)
        resumed = trainer(language_model(), tmp_path / "new", sentences(1), callback, **EVERY_FOUR)
        resumed.train(resume_from_checkpoint=str(named))
        assert (callback.rwalk.tasks, callback.rwalk.steps) == (2, 16)


@pytest.mark.parametrize("logged", [True, False])
def test_another_runs_checkpoint_of_the_same_step_is_not_mistaken_for_it(tmp_path, logged):
    options = EVERY_FOUR if logged else {**EVERY_FOUR, "logging_strategy": "no"}
    runs = {}
    for folder, task in (("here", 1), ("elsewhere", 0)):
        runs[folder] = RWalkTrainerCallback(CONFIG)
        trainer(language_model(), tmp_path / folder, sentences(task), runs[folder], **options).train()
    callback = RWalkTrainerCallback(CONFIG)
    resumed = trainer(language_model(), tmp_path / "here", sentences(0), callback, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "elsewhere" / "checkpoint-4"))
    assert_same_state(callback.rwalk.state_dict(), runs["elsewhere"].rwalk.state_dict())
    shutil.rmtree(tmp_path / "elsewhere" / "checkpoint-4" / "rwalk")
    resumed = trainer(language_model(), tmp_path / "here", sentences(0), RWalkTrainerCallback(CONFIG), **options)
    with pytest.raises(RWalkError, match="goes on from step 4, but no RWalk state"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "elsewhere" / "checkpoint-4"))


def test_a_checkpoint_saved_without_the_callback_is_refused(tmp_path):
    trainer(language_model(), tmp_path, sentences(0), **EVERY_FOUR).train()
    resumed = trainer(language_model(), tmp_path, sentences(0), RWalkTrainerCallback(CONFIG), **EVERY_FOUR)
    with pytest.raises(RWalkError, match="resume from a checkpoint that was saved with this callback"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_a_finished_training_that_is_resumed_ends_its_task(tmp_path):
    model, callback = language_model(), RWalkTrainerCallback(CONFIG)
    trainer(model, tmp_path, sentences(0), callback, **EVERY_FOUR).train()
    again = RWalkTrainerCallback(CONFIG)
    trainer(language_model(), tmp_path, sentences(0), again, **EVERY_FOUR).train(resume_from_checkpoint=True)
    assert_same_state(again.rwalk.state_dict(), callback.rwalk.state_dict())


@pytest.mark.parametrize("stop", [4, 6, 8, 12])
def test_a_training_resumed_where_an_epoch_ended_ends_its_task(tmp_path, stop):
    """Checkpoints by steps are written before Trainer tells of the epoch's end."""
    options = {**EVERY_FOUR, "num_train_epochs": 3}
    callbacks = [RWalkTrainerCallback(CONFIG, consolidate_on="epoch_end") for _ in range(3)]
    data = sentences(0, samples=16)
    trainer(language_model(), tmp_path / "whole", data, callbacks[0], **options).train()
    killed = trainer(language_model(), tmp_path / "killed", data, callbacks[1], StopAfter(stop), **options)
    if stop < 12:
        with pytest.raises(KeyboardInterrupt):
            killed.train()
    else:
        killed.train()
    resumed = trainer(language_model(), tmp_path / "killed", data, callbacks[2], **options)
    resumed.train(resume_from_checkpoint=True)
    assert callbacks[2].rwalk.tasks == 3
    assert_same_state(callbacks[2].rwalk.state_dict(), callbacks[0].rwalk.state_dict())


@pytest.mark.parametrize(
    ("moment", "strategy", "tasks"),
    [("train_end", "steps", [0, 0]), ("epoch_end", "epoch", [1, 2]), (4, "steps", [1, 2]), (5, "steps", [0, 1])],
)
def test_a_checkpoint_holds_the_state_of_its_own_step(tmp_path, moment, strategy, tasks):
    callback = RWalkTrainerCallback(CONFIG, consolidate_on=moment)
    options = {"save_strategy": strategy, "save_steps": 4, "num_train_epochs": 2}
    trainer(classifier(), tmp_path, labelled(0, samples=16), callback, **options).train()
    found = [inspect_state(tmp_path / f"checkpoint-{step}" / "rwalk" / "state.safetensors") for step in (4, 8)]
    assert [state["steps"] for state in found] == [4, 8]
    assert [state["tasks"] for state in found] == tasks


def test_what_lies_beside_the_model_is_what_trainer_puts_there(tmp_path):
    trainer(classifier(), tmp_path / "with", labelled(0), RWalkTrainerCallback(CONFIG), **EVERY_FOUR).train()
    trainer(classifier(), tmp_path / "without", labelled(0), **EVERY_FOUR).train()
    found, expected = (
        {path.name for path in (tmp_path / name / "checkpoint-8").iterdir()} for name in ("with", "without")
    )
    assert found - expected == {"rwalk"}
    assert expected <= found


class WorseAfter(TrainerCallback):
    """Every evaluation after a step is worse, by hand: the best model is the one at that step."""

    def __init__(self, step):
        self.step = step

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        metrics["eval_loss"] = abs(state.global_step - self.step)


def test_the_anchor_is_the_best_model_and_the_state_is_of_its_step(tmp_path):
    """Training eight steps and going back to the fourth is training four steps: windows, Fisher, anchors and all."""
    options = {**EVERY_FOUR, "lr_scheduler_type": "constant", "eval_strategy": "steps", "eval_steps": 4}
    best, stopped = classifier(), classifier()
    callback, reference = RWalkTrainerCallback(CONFIG), RWalkTrainerCallback(CONFIG)
    for task in (0, 1):
        data = labelled(task)
        long = trainer(
            best,
            tmp_path / f"best{task}",
            data,
            callback,
            WorseAfter(4),
            eval_dataset=data[:4],
            load_best_model_at_end=True,
            **options,
        )
        long.train()
        trainer(stopped, tmp_path / "stopped", data[:16], reference, lr_scheduler_type="constant").train()
        assert long.state.global_step == 8
        assert Path(long.state.best_model_checkpoint).name == "checkpoint-4"
        assert_same(weights(best), weights(stopped))
        assert_same_state(callback.rwalk.state_dict(), reference.rwalk.state_dict())
    assert_same(
        {name: values["anchor"] for name, values in callback.rwalk.state_dict()["parameters"].items()}, weights(best)
    )


def test_the_anchor_is_the_best_model_where_an_epoch_is_a_task_too(tmp_path):
    """The best model is of the middle of an epoch, whose task ends with it."""
    options = {**EVERY_FOUR, "eval_strategy": "steps", "eval_steps": 4, "num_train_epochs": 2}
    model, callback, data = classifier(), RWalkTrainerCallback(CONFIG, consolidate_on="epoch_end"), labelled(0)
    long = trainer(
        model, tmp_path, data, callback, WorseAfter(12), eval_dataset=data[:4], load_best_model_at_end=True, **options
    )
    long.train()
    state = callback.rwalk.state_dict()
    assert Path(long.state.best_model_checkpoint).name == "checkpoint-12"
    assert (state["tasks"], state["steps"], state["task_steps"]) == (2, 12, 0)
    assert_same({name: values["anchor"] for name, values in state["parameters"].items()}, weights(model))


def test_a_best_model_of_an_epochs_end_has_no_task_to_end(tmp_path, caplog):
    options = {"save_strategy": "epoch", "eval_strategy": "epoch", "num_train_epochs": 2}
    callback, data = RWalkTrainerCallback(CONFIG, consolidate_on="epoch_end"), labelled(0)
    with caplog.at_level("WARNING", logger="rwalk"):
        trainer(
            classifier(),
            tmp_path,
            data,
            callback,
            WorseAfter(8),
            eval_dataset=data[:4],
            load_best_model_at_end=True,
            **options,
        ).train()
    assert (callback.rwalk.tasks, callback.rwalk.steps) == (1, 8)
    assert "nothing changes" not in caplog.text
