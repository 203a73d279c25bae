"""Lightning: the data that a Fisher is estimated from at a task's end, and what is refused before it is too late."""

from contextlib import nullcontext
from itertools import cycle

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from contracts.doors_lightning import QUIET, Module, loader, quiet
from integrations.lightning_toys import PROBLEM, bare, fit
from reference.problems import assert_same
from rwalk import RWalk, RWalkConfig, RWalkError
from rwalk.integrations.lightning import RWalkCallback


def test_the_fisher_of_a_pass_takes_the_fits_own_data():
    module, walk = Module(PROBLEM), RWalkCallback(RWalkConfig.facil())
    module.forward = module.net.forward
    model = PROBLEM.model()
    rwalk = RWalk(model, PROBLEM.optimizer(model), RWalkConfig.facil())
    for x, y in PROBLEM.batches(0, 1):
        rwalk.optimizer.zero_grad()
        PROBLEM.loss(model(x), y).backward()
        rwalk.optimizer.step()
    rwalk.consolidate(PROBLEM.batches(0, 1))
    fit(module, 0, [walk])
    assert_same(bare(walk.rwalk.importances()), rwalk.importances())


class Endless(IterableDataset):
    """The task's samples, over and over."""

    def __iter__(self):
        for number, sample in enumerate(cycle(zip(*PROBLEM.samples(0), strict=True))):
            if number == 500:
                raise RuntimeError("read far more than was trained")
            yield sample


@pytest.mark.parametrize("limit", [{"max_steps": 4}, {"limit_train_batches": 4}])
@pytest.mark.parametrize("config", [RWalkConfig.facil(), RWalkConfig.laplace(fisher_samples=1000)])
def test_a_task_without_an_end_is_as_long_as_it_was_trained(tmp_path, config, limit):
    size, found = PROBLEM.batch_size, []
    few = TensorDataset(*(tensor[: 4 * size] for tensor in PROBLEM.samples(0)))
    for data, options in ((few, {}), (Endless(), limit)):
        module, walk = Module(PROBLEM), RWalkCallback(config)
        module.forward = module.net.forward
        saver = ModelCheckpoint(tmp_path, save_last=True, enable_version_counter=False)
        for last in (None, tmp_path / "last.ckpt"):  # which is written before the task ends
            trainer = Trainer(
                **{"max_epochs": 1, **QUIET, "enable_checkpointing": True}, callbacks=[walk, saver], **options
            )
            with quiet():
                trainer.fit(module, DataLoader(data, size), ckpt_path=last)
            assert (walk.rwalk.tasks, walk.rwalk.steps) == (1, 4)
            found.append(walk.rwalk.importances())
    for other in found[1:]:
        assert_same(other, found[0])


@pytest.mark.parametrize(
    ("loaders", "message"),
    [
        (lambda own: {"a": own, "b": own}, r"a collection of loaders \('a', 'b'\).*consolidate_on=None"),
        (lambda own: [own, own], r"a collection of loaders \(a list\).*consolidate_on=None"),
        (lambda own: own, r"Module has no forward: define it, or give RWalkCallback\(forward="),
    ],
)
def test_data_that_could_not_be_read_at_the_tasks_end_is_refused_before_it_begins(loaders, message):
    module, walk = Module(PROBLEM), RWalkCallback(RWalkConfig.facil())
    trainer = Trainer(max_epochs=1, callbacks=[walk], **QUIET)
    with quiet(), pytest.raises(RWalkError, match=message):
        trainer.fit(module, loaders(loader(PROBLEM, 0, 1)))
    assert trainer.global_step == 0
    assert not walk.rwalk.attached


class Named(Dataset):
    """The problem's samples by name, in the order of its loader."""

    def __init__(self):
        self.x, self.y = PROBLEM.samples(0)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"image": self.x[index], "label": self.y[index], "place": index}


def of_names(forward):
    """A module that is trained on samples by name."""
    module = Module(PROBLEM)
    module.training_step = lambda batch, batch_idx: Module.training_step(
        module, (batch["image"], batch["label"]), batch_idx
    )
    module.forward = forward or module.net.forward
    return module


@pytest.mark.parametrize("config", [RWalkConfig.facil(), RWalkConfig.laplace(fisher_samples=1000)])
def test_batches_by_name_are_read_as_the_user_says(config):
    found, size = [], PROBLEM.batch_size
    for module, data, forward in (
        (of_names(None), Named(), lambda module, batch: module.net(batch["image"])),
        (of_names(None), TensorDataset(*PROBLEM.samples(0)), None),
    ):
        if forward is None:
            del module.training_step
        walk = RWalkCallback(config, forward=forward)
        with quiet():
            Trainer(max_epochs=1, callbacks=[walk], **QUIET).fit(module, DataLoader(data, size))
        assert walk.rwalk.tasks == 1
        found.append(walk.rwalk.importances())
    assert_same(*found)


@pytest.mark.parametrize("config", [RWalkConfig.facil(), RWalkConfig.laplace()])
@pytest.mark.parametrize(
    ("forward", "data", "message"),
    [
        (None, Named(), r"forward of Module does not take 'image', 'place': give RWalkCallback\(forward="),
        (lambda: None, TensorDataset(*PROBLEM.samples(0)), "forward of Module does not take one input"),
    ],
)
def test_batches_that_forward_does_not_take_are_refused_at_the_first(config, forward, data, message):
    module, walk = of_names(forward), RWalkCallback(config)
    trainer = Trainer(max_epochs=1, callbacks=[walk], **QUIET)
    with quiet(), pytest.raises(RWalkError, match=message):
        trainer.fit(module, DataLoader(data, PROBLEM.batch_size))
    assert (trainer.global_step, walk.rwalk.attached) == (0, False)


SIZE = PROBLEM.batch_size
UNKNOWN = [
    (["a", "b"], "a str, it is not known how: expected a tensor"),
    ([(PROBLEM.samples(0)[0][:SIZE], PROBLEM.samples(0)[1][:2])], "of tensors with as many samples each"),
]


@pytest.mark.parametrize(("batches", "message"), UNKNOWN)
@pytest.mark.parametrize("forward", [None, lambda module, batch: module.net(PROBLEM.samples(0)[0][:SIZE])])
def test_samples_that_cannot_be_told_apart_are_refused_at_the_first_batch_whoever_calls_the_module(
    batches, message, forward
):
    module, walk = of_names(None), RWalkCallback(RWalkConfig.laplace(), forward=forward)
    trainer = Trainer(max_epochs=1, callbacks=[walk], **QUIET)
    with quiet(), pytest.raises(RWalkError, match=f"{message}.*take consolidate_on=None"):
        trainer.fit(module, DataLoader(batches, None))
    assert trainer.global_step == 0


@pytest.mark.parametrize("told", [False, True])
def test_a_fisher_of_batches_takes_whatever_the_user_can_call_the_module_with(told):
    x, y = PROBLEM.samples(0)
    module = of_names(None)
    module.training_step = lambda batch, batch_idx: Module.training_step(module, (x[:SIZE], y[:SIZE]), batch_idx)
    walk = RWalkCallback(RWalkConfig.facil(), forward=(lambda module, _: module.net(x[:SIZE])) if told else None)
    trainer = Trainer(max_epochs=1, callbacks=[walk], **QUIET)
    with quiet(), nullcontext() if told else pytest.raises(RWalkError, match=r"a str, .*give RWalkCallback\(forward="):
        trainer.fit(module, DataLoader(["a", "b"], None))
    assert (trainer.global_step, walk.rwalk.tasks) == ((2, 1) if told else (0, 0))


def test_several_loaders_are_read_where_the_user_says_how():
    module, walk = Module(PROBLEM), RWalkCallback(RWalkConfig.facil(), consolidate_on=None)
    module.training_step = lambda batch, batch_idx: Module.training_step(module, batch["a"], batch_idx)
    trainer = Trainer(max_epochs=1, callbacks=[walk], **QUIET)
    with quiet():
        trainer.fit(module, {"a": loader(PROBLEM, 0, 1), "b": loader(PROBLEM, 1, 1)})
    walk.consolidate(loader(PROBLEM, 0, 1), lambda batch: module.net(batch[0]))
    assert walk.rwalk.tasks == 1
