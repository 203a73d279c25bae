"""RWalkCallback with the optimizers that fits have: clipped, skipping, several, replaced, refused."""

import subprocess
import sys

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import BaseFinetuning
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from contracts.doors_lightning import ManualModule, Module, loader
from integrations.lightning_toys import PROBLEM, Plain, assert_alike, bare, fit
from reference.problems import assert_same, assert_same_state, weights
from rwalk import RWalk, RWalkError
from rwalk.integrations.lightning import RWalkCallback

CONFIG = PROBLEM.config


@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
def test_with_gradient_clipping_the_clipped_gradient_is_read(penalty):
    config = CONFIG.replace(penalty=penalty)
    plain, module, walk = Plain(), Module(PROBLEM), RWalkCallback(config)
    plain.clip, clipped = 0.05, []
    plain.rwalk.detach()
    plain.rwalk = RWalk(plain.model, PROBLEM.optimizer(plain.model), config)
    for task in range(2):
        plain.train(task)
        plain.rwalk.consolidate()
        fit(module, task, [walk], gradient_clip_val=0.05)
        clipped.append(torch.cat([f.flatten() for f in walk.rwalk.importances("fisher").values()]).sum())
    assert_alike(walk, module, plain)
    assert all(total <= 0.05**2 for total in clipped)  # F is a mean of g², of norms of at most 0.05


class Stumbles(Module):
    """Its first step overflows, or its first batch has no loss."""

    def __init__(self, overflows: bool) -> None:
        super().__init__(PROBLEM)
        self.overflows = overflows

    def training_step(self, batch, batch_idx):
        return None if batch_idx == 0 and not self.overflows else super().training_step(batch, batch_idx)

    def on_after_backward(self):
        if self.overflows and self.trainer.fit_loop.epoch_loop.batch_idx == 0:
            self.net[0].weight.grad[0, 0] = float("inf")


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_step_that_the_scaler_skips_leaves_no_trace():
    def trained(overflows, scale):
        module, walk = Stumbles(overflows), RWalkCallback(CONFIG)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        fit(module, 0, [walk], plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
        return module, walk.rwalk, scaler

    module, rwalk, scaler = trained(overflows=True, scale=2.0**11)
    expected, without, _ = trained(overflows=False, scale=2.0**10)
    assert scaler.get_scale() == 2.0**10
    assert rwalk.steps == without.steps == 9
    assert_same(weights(module), weights(expected))
    assert_same_state(rwalk.state_dict(), without.state_dict())


def test_a_parameter_group_added_midway_joins():
    class Thaw(BaseFinetuning):
        def freeze_before_training(self, pl_module):
            self.freeze(pl_module.net[0])

        def finetune_function(self, pl_module, epoch, optimizer):
            if epoch == 1:
                self.unfreeze_and_add_param_group(pl_module.net[0], optimizer, lr=0.01)

    module, walk = Module(PROBLEM), RWalkCallback(CONFIG)
    module.configure_optimizers = lambda: torch.optim.SGD(module.net[2].parameters(), lr=0.05)
    names = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            names.append(set(walk.rwalk.importances("fisher")))

    fit(module, 0, [Thaw(), walk, Look()], max_epochs=2)
    head = {"net.2.weight", "net.2.bias"}
    assert names == [head, head | {"net.0.weight", "net.0.bias"}]
    assert walk.rwalk.importances()["net.0.weight"].any()


def test_an_optimizer_replaced_midway_is_followed_from_its_first_step():
    class Replace(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 5:
                trainer.strategy.optimizers = [torch.optim.SGD(pl_module.parameters(), lr=0.01)]

    module, walk = Module(PROBLEM), RWalkCallback(CONFIG)
    fit(module, 0, [Replace(), walk])
    assert walk.rwalk.steps == 10


def test_learning_rate_schedules_move_the_proximal_step():
    config = CONFIG.replace(penalty="proximal", ewc_lambda=5.0)
    plain, module, walk = Plain(), Module(PROBLEM), RWalkCallback(config)
    plain.rwalk.detach()
    plain.rwalk = RWalk(plain.model, plain.optimizer, config)

    def configure():
        optimizer = PROBLEM.optimizer(module.net)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=10)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    module.configure_optimizers = configure
    for task in range(2):
        plain.rwalk.detach()
        plain.optimizer = PROBLEM.optimizer(plain.model)
        schedule = torch.optim.lr_scheduler.LinearLR(plain.optimizer, 1.0, 0.1, total_iters=10)
        plain.rwalk.attach(plain.optimizer)
        for x, y in PROBLEM.batches(task, 1):
            plain.optimizer.zero_grad()
            PROBLEM.loss(plain.model(x), y).backward()
            plain.optimizer.step()
            schedule.step()
        plain.rwalk.consolidate()
        fit(module, task, [walk])
    assert_alike(walk, module, plain)


def test_a_fused_optimizer_under_the_scaler_equals_full_precision():
    def trained(**options):
        module, walk = Module(PROBLEM), RWalkCallback(CONFIG)
        module.configure_optimizers = lambda: torch.optim.Adam(module.parameters(), lr=0.01, fused=True)
        for task in range(2):
            fit(module, task, [walk], **options)
        return module, walk.rwalk.state_dict()

    class Unrounded(MixedPrecision):  # scaling alone, by a power of two: exact
        def autocast_context_manager(self):
            return torch.autocast("cpu", enabled=False)

    plain, expected = trained()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaled, found = trained(plugins=[Unrounded("16-mixed", "cpu", scaler)])
    assert_same(weights(scaled), weights(plain))
    assert_same_state(found, expected)


def test_parameters_in_bf16_have_state_in_float32():
    module, walk = Module(PROBLEM), RWalkCallback(CONFIG)
    fit(module, 0, [walk], precision="bf16-true")
    assert module.net[0].weight.dtype is torch.bfloat16
    assert {value.dtype for value in walk.rwalk.importances().values()} == {torch.float32}
    assert all(bool(value.isfinite().all()) for value in walk.rwalk.importances().values())


def test_closures_under_manual_optimization_are_read_after_they_ran():
    class Closing(ManualModule):
        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()

            def closure():
                optimizer.zero_grad()
                self.manual_backward(Module.training_step(self, batch, batch_idx))

            optimizer.step(closure)

    plain, module, walk = Plain(), Closing(PROBLEM), RWalkCallback(CONFIG)
    for task in range(2):
        plain.train(task)
        plain.rwalk.consolidate()
        fit(module, task, [walk])
    assert_alike(walk, module, plain)


class Two(LightningModule):
    """Two networks, each with an optimizer of its own, that learn from one another's output."""

    def __init__(self, shared: bool = False) -> None:
        super().__init__()
        self.automatic_optimization, self.shared = False, shared
        self.first, self.second = PROBLEM.model(), nn.Linear(3, 3)
        with torch.no_grad():
            self.second.weight.copy_(torch.eye(3))
            self.second.bias.zero_()

    def training_step(self, batch, batch_idx):
        x, y = batch
        for optimizer in self.optimizers():
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(PROBLEM.loss(self.second(self.first(x)), y))
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self):
        second = [*self.second.parameters(), *([self.first[0].weight] if self.shared else [])]
        return torch.optim.SGD(self.first.parameters(), lr=0.05), torch.optim.Adam(second, lr=0.01)


def test_several_optimizers_have_a_core_each():
    module, walk = Two(), RWalkCallback(CONFIG)
    model = Two()
    walks = [RWalk(model, optimizer, CONFIG, attach=False) for optimizer in model.configure_optimizers()]
    for task in range(2):
        fit(module, task, [walk])
        optimizers = model.configure_optimizers()
        for rwalk, optimizer in zip(walks, optimizers, strict=True):
            rwalk.attach(optimizer)
        for x, y in loader(PROBLEM, task, 1):
            for optimizer in optimizers:
                optimizer.zero_grad()
                PROBLEM.loss(model.second(model.first(x)), y).backward()
                optimizer.step()
        for rwalk in walks:
            rwalk.consolidate()
            rwalk.detach()
    assert_same(weights(module), weights(model))
    assert {index: rwalk.tasks for index, rwalk in walk.rwalks.items()} == {0: 2, 1: 2}
    for index, rwalk in enumerate(walks):
        assert_same_state(walk.rwalks[index].state_dict(), rwalk.state_dict())
        assert max(value.max() for value in rwalk.importances().values()) > 0
    with pytest.raises(RWalkError, match=r"2 cores.*callback\.rwalks"):
        _ = walk.rwalk


def test_an_optimizer_without_protected_parameters_is_left_alone():
    module, walk = Two(), RWalkCallback(CONFIG.replace(include=("second.*",)))
    fit(module, 0, [walk])
    assert list(walk.rwalks) == [1]
    assert set(bare(walk.rwalk.importances())) == {"second.weight", "second.bias"}


def test_a_state_file_goes_to_the_optimizer_that_holds_its_parameters(tmp_path):
    module, walk = Two(), RWalkCallback(CONFIG.replace(include=("second.*",)))
    fit(module, 0, [walk])
    walk.rwalk.save(tmp_path / "second.safetensors")
    later = RWalkCallback(start_from=tmp_path / "second.safetensors")
    fit(module, 1, [later])
    assert {index: rwalk.tasks for index, rwalk in later.rwalks.items()} == {1: 2}


def test_several_optimizers_start_from_a_file_each(tmp_path):
    module, walk = Two(), RWalkCallback(CONFIG)
    fit(module, 0, [walk])
    twin = Two()
    twin.load_state_dict(module.state_dict())
    files = [tmp_path / "second.safetensors", tmp_path / "first.safetensors"]
    walk.rwalks[1].save(files[0])
    walk.rwalks[0].save(files[1])
    later = RWalkCallback(start_from=files)
    fit(module, 1, [walk])
    fit(twin, 1, [later])
    for index in (0, 1):
        assert_same_state(later.rwalks[index].state_dict(), walk.rwalks[index].state_dict())


def test_a_parameter_in_two_optimizers_is_refused_unless_it_is_left_out():
    with pytest.raises(RWalkError, match=r"first\.0\.weight is in optimizers \[0, 1\]"):
        fit(Two(shared=True), 0, [RWalkCallback(CONFIG)])
    walk = RWalkCallback(CONFIG.replace(exclude=("first.0.weight",)))
    fit(Two(shared=True), 0, [walk])
    assert {rwalk.tasks for rwalk in walk.rwalks.values()} == {1}


def test_an_optimizer_gone_whose_importances_are_kept_is_refused():
    module, walk = Two(), RWalkCallback(CONFIG)
    fit(module, 0, [walk])
    both = module.configure_optimizers
    module.configure_optimizers = lambda: both()[:1]
    with pytest.raises(RWalkError, match="importances are kept for the parameters of optimizer 1, and only \\[0\\]"):
        fit(module, 1, [walk])
    assert not walk.rwalks[0].attached


def test_another_module_with_the_same_parameters_goes_on():
    first, second, walk = Module(PROBLEM), Module(PROBLEM), RWalkCallback(CONFIG)
    fit(first, 0, [walk])
    second.load_state_dict(first.state_dict())
    fit(second, 1, [walk])
    assert (walk.rwalk.tasks, walk.rwalk.model) == (2, second)


def refused(configure, message, **options):
    module = Module(PROBLEM)
    module.configure_optimizers = lambda: configure(module)
    with pytest.raises(RWalkError, match=message):
        fit(module, 0, [RWalkCallback(CONFIG)], **options)


def test_lbfgs_is_refused():
    refused(lambda module: torch.optim.LBFGS(module.parameters()), "LBFGS")


def test_an_optimizer_of_something_else_is_refused():
    refused(lambda module: torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1), "none of the parameters of Module")


def test_a_second_rwalk_on_the_optimizer_is_refused():
    def configure(module):
        optimizer = PROBLEM.optimizer(module.net)
        module.other = RWalk(module, optimizer)
        return optimizer

    refused(configure, "another RWalk is attached")


def test_an_engine_that_steps_by_itself_is_refused():
    class Engine(SingleDeviceStrategy):
        handles_gradient_accumulation = True  # as DeepSpeed's strategy says of itself

    module = Module(PROBLEM)
    with pytest.raises(RWalkError, match="Engine steps inside its own engine"):
        fit(module, 0, [RWalkCallback(CONFIG)], strategy=Engine("cpu"), accelerator="auto")


def test_without_lightning_the_error_names_the_extra():
    program = "import sys; sys.modules['lightning'] = None; import rwalk.integrations.lightning"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "MissingExtraError: RWalkCallback needs lightning" in result.stderr
    assert "pip install 'rwalk[lightning]'" in result.stderr
