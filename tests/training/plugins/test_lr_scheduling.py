"""Learning rates at every step."""

import pytest
import torch
from torch.optim.lr_scheduler import LinearLR, ReduceLROnPlateau, StepLR

from rwalk.training import LRSchedulerPlugin
from training.toys import Recorder, naive, net, sgd, toy

LR = 0.1


def plateau(seen):
    """A scheduler that writes down what it was stepped with (outside of its own state, which is reset)."""

    class Plateau(ReduceLROnPlateau):
        def step(self, metrics, epoch=None):
            seen.append(float(metrics))
            super().step(metrics, epoch)

    return lambda optimizer: Plateau(optimizer, factor=0.5, patience=0)


def rates(make, *, epochs=3, eval_every=-1, peval_mode="epoch", note=None, hook="before_update", **settings):
    """Learning rate of each iteration (three an epoch, two experiences) and at the end, and what was noted."""
    model, benchmark = net(), toy()
    optimizer = sgd(model, LR)
    recorder = Recorder(lambda strategy: optimizer.param_groups[0]["lr"], "before_update")
    watcher = Recorder(note or (lambda strategy: None), hook)
    strategy = naive(
        model,
        optimizer=optimizer,
        plugins=[LRSchedulerPlugin(make(optimizer), **settings), recorder, watcher],
        train_epochs=epochs,
        eval_every=eval_every,
        peval_mode=peval_mode,
    )
    strategy.train(benchmark.train_stream, [benchmark.test_stream])
    return recorder.notes("before_update"), optimizer.param_groups[0]["lr"], watcher.notes(hook)


def halving(optimizer):
    return StepLR(optimizer, 1, gamma=0.5)


def each(*values, times=3):
    return pytest.approx([value for value in values for _ in range(times)])


def test_each_epoch_steps_and_each_experience_starts_again():
    found, end, _ = rates(halving)
    assert found == each(0.1, 0.05, 0.025, 0.1, 0.05, 0.025)
    assert end == LR


def test_without_a_reset_it_goes_on():
    found, end, _ = rates(halving, reset_scheduler=False)
    assert found == each(*(0.1 / 2**k for k in range(6)))
    assert end == pytest.approx(0.1 / 2**6)


def test_each_iteration_can_step():
    found, *_ = rates(halving, epochs=1, step_granularity="iteration")
    assert found == pytest.approx([0.1, 0.05, 0.025] * 2)


def test_a_warm_up_starts_from_its_own_first_rate_again():
    found, *_ = rates(lambda optimizer: LinearLR(optimizer, start_factor=0.5, total_iters=2))
    assert found == each(0.05, 0.075, 0.1, 0.05, 0.075, 0.1)


def test_only_the_first_experience_if_so_wished():
    found, *_ = rates(halving, first_exp_only=True)
    assert found == each(0.1, 0.05, 0.025, 0.1, 0.1, 0.1)


@pytest.mark.parametrize(("granularity", "group"), [("epoch", 3), ("iteration", 1)])
def test_a_plateau_is_found_in_the_mean_training_loss(granularity, group):
    seen = []
    _, _, losses = rates(
        plateau(seen),
        metric="train_loss",
        step_granularity=granularity,
        note=lambda strategy: float(strategy.loss.detach()),
        hook="after_training_iteration",
    )
    means = torch.tensor(losses).view(-1, group).mean(1).tolist()
    assert seen == pytest.approx(means)


def test_a_plateau_is_found_in_the_loss_of_evaluations_during_training():
    seen = []
    found, _, losses = rates(
        plateau(seen),
        metric="val_loss",
        eval_every=1,
        note=lambda strategy: float(strategy.loss),
        hook="after_eval_iteration",
    )
    during = torch.tensor(losses).view(-1, 6).mean(1)[1:]  # the first evaluation comes before training
    assert seen == pytest.approx(during.tolist())
    assert len(during) == 6
    assert len(found) == 18


def test_a_plateau_lowers_the_rate_and_the_next_experience_starts_again():
    class Worse(ReduceLROnPlateau):
        calls = 0

        def step(self, metrics, epoch=None):
            self.calls += 1
            super().step(float(self.calls), epoch)  # worse each time

    found, *_ = rates(lambda optimizer: Worse(optimizer, factor=0.5, patience=0), metric="train_loss")
    assert found[:9] == each(0.1, 0.1, 0.05)
    assert found[9:12] == each(0.1)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (halving, {"metric": "train_loss"}, "metric='train_loss': StepLR takes no metric"),
        (plateau([]), {}, "metric=None: Plateau needs a metric"),
        (plateau([]), {"metric": "accuracy"}, "metric='accuracy': expected 'train_loss', 'val_loss' or None"),
        (halving, {"step_granularity": "batch"}, "step_granularity='batch': expected 'epoch' or 'iteration'"),
    ],
)
def test_a_metric_goes_with_the_scheduler_that_needs_one(make, settings, message):
    with pytest.raises(ValueError, match=message):
        LRSchedulerPlugin(make(sgd(net())), **settings)
