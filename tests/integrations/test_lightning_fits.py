"""RWalkCallback through whole fits: one task after another, interrupted, resumed, evaluated, replaced."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    ModelCheckpoint,
    OnExceptionCheckpoint,
)

from contracts.doors_lightning import QUIET, Module, loader, quiet
from integrations.lightning_toys import PROBLEM, Plain, assert_alike, fit
from reference.problems import assert_same, assert_same_state, weights
from rwalk import RWalkConfig, RWalkError
from rwalk.core.files import load_state
from rwalk.integrations.lightning import RWalkCallback

CONFIG = PROBLEM.config


class Stop(Callback):
    """Breaks off before the batch of this number in the fit."""

    def __init__(self, batch: int) -> None:
        self.left = batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.left == 0:
            raise ZeroDivisionError
        self.left -= 1


def test_every_fit_goes_on_with_the_same_rwalk_on_new_optimizers():
    plain, module, walk = Plain(), Module(PROBLEM), RWalkCallback(CONFIG)
    for task in range(3):
        plain.train(task)
        plain.rwalk.consolidate()
        fit(module, task, [walk])
        assert_alike(walk, module, plain)
    assert walk.rwalk.tasks == 3


def test_between_fits_nothing_is_followed():
    module, walk = Module(PROBLEM), RWalkCallback(CONFIG)
    trainer = fit(module, 0, [walk])
    assert not walk.rwalk.attached
    trainer.strategy.optimizers = []
    optimizer = PROBLEM.optimizer(module)
    module.net(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    assert walk.rwalk.steps == 10


def test_a_fit_resumed_in_mid_task_ends_as_if_it_had_not_stopped(tmp_path):
    whole, walk = Module(PROBLEM), RWalkCallback(CONFIG)
    fit(whole, 0, [walk])
    fit(whole, 1, [walk], max_epochs=2)

    stopped, first, saver = Module(PROBLEM), RWalkCallback(CONFIG), ModelCheckpoint(tmp_path, save_last=True)
    fit(stopped, 0, [first])
    with pytest.raises(ZeroDivisionError):
        fit(stopped, 1, [first, saver, Stop(13)], max_epochs=2, enable_checkpointing=True)
    resumed, second = Module(PROBLEM), RWalkCallback(CONFIG)
    last = tmp_path / "last.ckpt"
    assert torch.load(last, weights_only=True)["callbacks"]["RWalkCallback"]["optimizers"][0]["window_steps"] == 1
    fit(resumed, 1, [second, saver], max_epochs=2, enable_checkpointing=True, ckpt_path=last)
    assert (second.rwalk.tasks, second.rwalk.steps) == (2, 30)
    assert_same(weights(resumed), weights(whole))
    assert_same_state(second.rwalk.state_dict(), walk.rwalk.state_dict())


@pytest.mark.parametrize("step", [10, 20])
def test_a_fit_resumed_where_an_epoch_ended_keeps_its_open_window(tmp_path, step):
    """Lightning goes on with the epoch that has ended, and does not tell that the next one starts."""

    def trained(folder, *callbacks, **options):
        module = Module(PROBLEM)
        saver = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=10, save_top_k=-1)
        fit(module, 0, [*callbacks, saver], max_epochs=3, enable_checkpointing=True, **options)
        return module

    folder = tmp_path / "alone"
    alone = [trained(folder), trained(folder, ckpt_path=folder / f"step={step}.ckpt")]
    if not torch.equal(*(module.net[0].weight for module in alone)):
        pytest.skip("this Lightning does not go on exactly from there by itself")
    walk, other = (RWalkCallback(CONFIG.replace(delta_t=7)) for _ in range(2))
    whole = trained(tmp_path, walk)
    resumed = trained(tmp_path, other, ckpt_path=tmp_path / f"step={step}.ckpt")
    assert_same(weights(resumed), weights(whole))
    assert_same_state(other.rwalk.state_dict(), walk.rwalk.state_dict())


class Halves(Callback):
    """Puts other weights in place as the second epoch begins, and notes how long windows are."""

    def __init__(self, walk) -> None:
        self.walk, self.windows = walk, []

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            with torch.no_grad():
                for parameter in pl_module.parameters():
                    parameter.mul_(0.5)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.windows.append(self.walk.rwalk.window_steps)


class FindsTheRate(LearningRateFinder):
    """As Lightning's documentation fine-tunes one: in the middle of a fit, after which everything is put back."""

    def on_fit_start(self, trainer, pl_module):
        return

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.lr_find(trainer, pl_module)


class FindsTheSize(BatchSizeFinder):
    """The same for the size of batches."""

    def on_fit_start(self, trainer, pl_module):
        return

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            self.scale_batch_size(trainer, pl_module)


class Tuned(Module):
    """Has what Lightning's tuners look for."""

    lr, batch_size = 0.05, 4

    def train_dataloader(self):
        return loader(PROBLEM, 0, 1)


@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.parametrize(
    "finder",
    [
        lambda: FindsTheRate(num_training_steps=5, update_attr=False),
        lambda: FindsTheSize(mode="binsearch", max_trials=1, steps_per_trial=2, init_val=4),
    ],
    ids=["learning rate", "batch size"],
)
def test_what_a_tuner_tries_in_mid_fit_is_no_part_of_the_task(tmp_path, finder):
    seen = []

    class Counts(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen.append(walk.rwalk.steps)

    module, walk = Tuned(PROBLEM), RWalkCallback(CONFIG)
    trainer = Trainer(max_epochs=3, callbacks=[walk, finder(), Counts()], default_root_dir=tmp_path, **QUIET)
    with quiet():
        trainer.fit(module)
    assert seen == list(range(1, trainer.global_step + 1))
    assert (walk.rwalk.tasks, walk.rwalk.steps, walk._group.waits) == (1, trainer.global_step, False)
    assert trainer.global_step > 10


@pytest.mark.parametrize("others", [lambda walk: [], lambda walk: [Halves(walk)]], ids=["alone", "beside another"])
def test_a_learning_rate_that_is_looked_for_in_mid_fit_changes_nothing(tmp_path, others):
    whole, walk = Tuned(PROBLEM), RWalkCallback(CONFIG.replace(delta_t=7))
    fit(whole, 0, [walk, *others(walk)], max_epochs=3)
    tuned, other = Tuned(PROBLEM), RWalkCallback(CONFIG.replace(delta_t=7))
    finder = FindsTheRate(num_training_steps=5, update_attr=False)
    fit(tuned, 0, [other, *others(other), finder], max_epochs=3, default_root_dir=tmp_path)
    assert_same(weights(tuned), weights(whole))
    assert_same_state(other.rwalk.state_dict(), walk.rwalk.state_dict())


def test_checkpoints_are_read_without_running_code(tmp_path):
    module, walk = Module(PROBLEM), RWalkCallback(CONFIG)
    fit(module, 0, [walk]).save_checkpoint(tmp_path / "end.ckpt")
    states = torch.load(tmp_path / "end.ckpt", weights_only=True)["callbacks"]["RWalkCallback"]["optimizers"]
    assert_same_state(states[0], walk.rwalk.state_dict())
    assert states[0]["tasks"] == 1


def test_a_fit_resumed_after_its_last_step_still_ends_its_task(tmp_path):
    module, walk, saver = Module(PROBLEM), RWalkCallback(CONFIG), ModelCheckpoint(tmp_path, save_last=True)
    fit(module, 0, [walk, saver], enable_checkpointing=True)
    last = tmp_path / "last.ckpt"  # Lightning writes it before it ends the training
    assert torch.load(last, weights_only=True)["callbacks"]["RWalkCallback"]["optimizers"][0]["tasks"] == 0
    again, other = Module(PROBLEM), RWalkCallback(CONFIG)
    fit(again, 0, [other, saver], enable_checkpointing=True, ckpt_path=last)
    assert_same_state(other.rwalk.state_dict(), walk.rwalk.state_dict())
    assert (other.rwalk.tasks, other.rwalk.attached) == (1, False)


def test_an_interrupted_task_is_not_consolidated_and_goes_on_in_the_next_fit():
    module, walk = Module(PROBLEM), RWalkCallback(CONFIG)
    with pytest.raises(ZeroDivisionError):
        fit(module, 0, [walk, Stop(5)])
    assert (walk.rwalk.tasks, walk.rwalk.steps, walk.rwalk.attached) == (0, 5, False)
    fit(module, 0, [walk])
    assert (walk.rwalk.tasks, walk.rwalk.steps) == (1, 15)


def test_an_interrupted_trainer_that_fits_again_ends_the_task_once(caplog):
    module, walk, stop = Module(PROBLEM), RWalkCallback(CONFIG), Stop(5)
    trainer = Trainer(max_epochs=1, callbacks=[walk, stop], **QUIET)
    with quiet(), pytest.raises(ZeroDivisionError):
        trainer.fit(module, loader(PROBLEM, 0, 1))
    assert trainer.callbacks == [walk, stop]
    stop.left = -1
    with quiet(), caplog.at_level("WARNING", logger="rwalk"):
        trainer.fit(module, loader(PROBLEM, 0, 1))
    assert walk.rwalk.tasks == 1
    assert trainer.callbacks == [walk, stop]
    assert not [record for record in caplog.records if record.name.startswith("rwalk")]


def test_a_checkpoint_of_a_failed_step_can_be_written(tmp_path):
    class Fails(torch.optim.SGD):
        def step(self, closure=None):
            closure()
            raise FloatingPointError("in the optimizer")

    module, walk = Module(PROBLEM), RWalkCallback(CONFIG)
    module.configure_optimizers = lambda: Fails(module.parameters(), lr=0.1)
    saver = OnExceptionCheckpoint(tmp_path)
    with pytest.raises(FloatingPointError):
        fit(module, 0, [saver, walk], enable_checkpointing=True)
    state = torch.load(saver.ckpt_path, weights_only=True)["callbacks"]["RWalkCallback"]["optimizers"][0]
    assert state["steps"] == 0


def test_a_new_process_starts_the_next_task_from_a_state_file(tmp_path):
    whole, walk = Module(PROBLEM), RWalkCallback(CONFIG)
    fit(whole, 0, [walk])
    walk.rwalk.save(tmp_path / "a.safetensors")
    later = Module(PROBLEM)
    later.load_state_dict(whole.state_dict())
    second = RWalkCallback(start_from=tmp_path / "a.safetensors")
    assert_same_state(second.state_dict()["optimizers"][0], load_state(tmp_path / "a.safetensors"))
    fit(later, 1, [second])
    fit(whole, 1, [walk])
    assert second.rwalk.config == CONFIG
    assert_same(weights(later), weights(whole))
    assert_same_state(second.rwalk.state_dict(), walk.rwalk.state_dict())


def test_evaluating_an_older_checkpoint_leaves_the_importances(tmp_path):
    module, walk = Module(PROBLEM), RWalkCallback(CONFIG)
    module.test_step = lambda batch, batch_idx: None
    saver = ModelCheckpoint(tmp_path, filename="mid", every_n_train_steps=4)
    trainer = fit(module, 0, [walk, saver], enable_checkpointing=True)
    after = walk.rwalk.state_dict()
    with quiet():
        trainer.test(module, loader(PROBLEM, 0, 1), ckpt_path=str(tmp_path / "mid.ckpt"), verbose=False)
    assert_same_state(walk.state_dict()["optimizers"][0], after)
    fit(module, 1, [walk])
    assert walk.rwalk.tasks == 2


def test_validation_within_a_fit_changes_nothing():
    plain, module, walk = Plain(), Module(PROBLEM), RWalkCallback(CONFIG)
    module.validation_step = lambda batch, batch_idx: module.log("loss", PROBLEM.loss(module.net(batch[0]), batch[1]))
    module.val_dataloader = lambda: loader(PROBLEM, 1, 1)
    fit(module, 0, [walk], val_check_interval=3, check_val_every_n_epoch=1)
    plain.train(0)
    plain.rwalk.consolidate()
    assert_alike(walk, module, plain)


def test_tasks_can_end_every_so_many_steps():
    plain, module, walk = Plain(), Module(PROBLEM), RWalkCallback(CONFIG, consolidate_on=4)
    fit(module, 0, [walk])
    fit(module, 1, [walk])
    plain.rwalk.detach()
    for task in range(2):
        plain.optimizer = PROBLEM.optimizer(plain.model)
        plain.rwalk.attach(plain.optimizer)
        for x, y in PROBLEM.batches(task, 1):
            plain.optimizer.zero_grad()
            PROBLEM.loss(plain.model(x), y).backward()
            plain.optimizer.step()
            if plain.rwalk.steps % 4 == 0:
                plain.rwalk.consolidate()
        plain.rwalk.detach()
    assert walk.rwalk.tasks == 5
    assert_alike(walk, module, plain)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_the_tasks_data_is_read_in_the_precision_of_the_module(precision):
    module, walk = Module(PROBLEM), RWalkCallback(RWalkConfig.laplace())
    module.forward = module.net.forward
    module.training_step = lambda batch, batch_idx: module(batch[0]).float().square().mean()
    for task in range(2):
        trainer = Trainer(max_epochs=1, callbacks=[walk], precision=precision, **QUIET)
        with quiet():
            trainer.fit(module, loader(PROBLEM, task, 1))
    assert walk.rwalk.tasks == 2


def test_a_number_of_steps_is_no_task_whose_data_is_known():
    with pytest.raises(RWalkError, match="fisher_source needs a task's data"):
        fit(Module(PROBLEM), 0, [RWalkCallback(RWalkConfig.laplace(), consolidate_on=4)])


def test_tasks_end_when_the_user_says_so():
    plain, module, walk = Plain(), Module(PROBLEM), RWalkCallback(CONFIG, consolidate_on=None)
    fit(module, 0, [walk])
    assert walk.rwalk.tasks == 0
    walk.consolidate()
    plain.train(0)
    plain.rwalk.consolidate()
    assert_alike(walk, module, plain)


def test_figures_are_logged():
    module, walk = Module(PROBLEM), RWalkCallback(CONFIG, log=True)
    fit(module, 0, [walk], log_every_n_steps=5)
    trainer = Trainer(max_epochs=1, callbacks=[walk], **QUIET)
    assert trainer.callback_metrics == {}
    seen = []

    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            seen.append((trainer.global_step, trainer.callback_metrics.get("rwalk/penalty"), walk.rwalk.penalty()))

    trainer = fit(module, 1, [walk, Look()], log_every_n_steps=5)
    assert trainer.callback_metrics["rwalk/tasks"] == 1
    assert seen[4][1] == seen[4][2] > 0  # logged in the fifth step
    assert seen[5][1] == seen[4][1] != seen[5][2]  # and not in the sixth


@pytest.mark.parametrize("options", [{"log_every_n_steps": 0}, {"barebones": True}])
def test_a_trainer_that_never_logs_trains_all_the_same(options):
    walk = RWalkCallback(CONFIG, log=True)
    quietly = {} if "barebones" in options else QUIET
    trainer = Trainer(max_epochs=1, callbacks=[walk], **{"accelerator": "cpu", **quietly, **options})
    with quiet():
        trainer.fit(Module(PROBLEM), loader(PROBLEM, 0, 1))
    assert (walk.rwalk.tasks, walk.rwalk.steps) == (1, 10)
    assert trainer.callback_metrics == {}


@pytest.mark.parametrize("value", ["fit", 0, -1, True, 2.5])
def test_other_ends_of_tasks_are_refused(value):
    with pytest.raises(ValueError, match=r"consolidate_on=.*'train_end'"):
        RWalkCallback(consolidate_on=value)


def test_before_training_there_is_no_core():
    with pytest.raises(RWalkError, match="there are 0 cores"):
        _ = RWalkCallback(RWalkConfig()).rwalk


def test_weights_put_in_place_between_epochs_are_no_walk():
    module, walk = Module(PROBLEM), RWalkCallback(CONFIG.replace(delta_t=7))
    halves = Halves(walk)
    fit(module, 0, [walk, halves], max_epochs=2)
    assert halves.windows == [1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3]
