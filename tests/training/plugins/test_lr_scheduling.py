"""Learning rates at every step."""

import pytest
import torch
from torch.optim import lr_scheduler as S
from torch.optim.lr_scheduler import LinearLR, ReduceLROnPlateau, StepLR

from rwalk.core.sharding import RELEASE
from rwalk.streams import Stream
from rwalk.training import BasePlugin, LRSchedulerPlugin
from training.toys import Recorder, naive, net, sgd, toy

LR = 0.1
FILLS_TENSORS = (2, 11)  # before that some schedulers replace a learning rate that is a tensor, or leave it as it is


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


SCHEDULERS = {
    "LambdaLR": lambda o: S.LambdaLR(o, lr_lambda=lambda step: 0.9**step),
    "MultiplicativeLR": lambda o: S.MultiplicativeLR(o, lr_lambda=lambda step: 0.9),
    "StepLR": lambda o: S.StepLR(o, 2, gamma=0.5),
    "MultiStepLR": lambda o: S.MultiStepLR(o, [1, 3], gamma=0.5),
    "ConstantLR": lambda o: S.ConstantLR(o, factor=0.5, total_iters=2),
    "LinearLR": lambda o: S.LinearLR(o, start_factor=0.5, total_iters=3),
    "ExponentialLR": lambda o: S.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: S.PolynomialLR(o, total_iters=5),
    "CosineAnnealingLR": lambda o: S.CosineAnnealingLR(o, T_max=4),
    "CosineAnnealingWarmRestarts": lambda o: S.CosineAnnealingWarmRestarts(o, T_0=2),
    "CyclicLR": lambda o: S.CyclicLR(o, base_lr=0.01, max_lr=0.1, step_size_up=2),
    "OneCycleLR": lambda o: S.OneCycleLR(o, max_lr=0.1, total_steps=20),
    "SequentialLR": lambda o: S.SequentialLR(o, [S.ConstantLR(o, 0.5, 2), S.ExponentialLR(o, 0.8)], milestones=[2]),
    "ChainedScheduler": lambda o: S.ChainedScheduler([S.ConstantLR(o, 0.5, 2), S.ExponentialLR(o, 0.8)], optimizer=o),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, swa_lr=0.01, anneal_epochs=3),
}


def optimizer_for(model, tensor):
    """SGD, with momentum, or Adam with the learning rate in a tensor."""
    if not tensor:
        return sgd(model, LR)
    return torch.optim.Adam(model.parameters(), lr=torch.tensor(LR, dtype=torch.float64), betas=(0.9, 0.99))


def settings_of(optimizer):
    (group,) = optimizer.param_groups
    more = [group["momentum"]] if "momentum" in group else list(group["betas"])
    return [float(group["lr"]), *more]


def scheduled(name, tensor, *, reset, experiences=2):
    """The settings of each iteration, by experience; what holds the learning rate at the beginning and the end."""
    torch.manual_seed(0)
    model, benchmark = net(), toy()
    optimizer = optimizer_for(model, tensor)
    plugin = LRSchedulerPlugin(SCHEDULERS[name](optimizer), step_granularity="iteration", reset_scheduler=reset)
    seen = Recorder(lambda strategy: settings_of(optimizer), "before_update")
    strategy = naive(model, optimizer=optimizer, plugins=[plugin, seen])
    holders = [optimizer.param_groups[0]["lr"]]
    for _ in range(experiences):
        strategy.train(benchmark.train_stream[0])
        holders.append(optimizer.param_groups[0]["lr"])
    notes = seen.notes("before_update")
    return [notes[i : i + 3] for i in range(0, len(notes), 3)], holders


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.filterwarnings("ignore:To get the last learning rate computed:UserWarning", "ignore:.*epoch parameter")
def test_every_scheduler_starts_again_with_all_that_it_moves_or_goes_on(name, tensor):
    again, holders = scheduled(name, tensor, reset=True)
    assert again[0] == [pytest.approx(setting) for setting in again[1]]
    moves = again[0][0] != again[0][1] or again[0][1] != again[0][2]
    assert moves or (tensor and RELEASE < FILLS_TENSORS)
    on, _ = scheduled(name, tensor, reset=False)
    assert on[0] == [pytest.approx(setting) for setting in again[0]]
    model = net()
    optimizer = optimizer_for(model, tensor)
    began = optimizer.param_groups[0]["lr"]
    plain, scheduler = [], SCHEDULERS[name](optimizer)
    for _ in range(6):
        plain.append(settings_of(optimizer))
        model(torch.zeros(2, 4)).sum().backward()
        optimizer.step()
        scheduler.step()
    filled = optimizer.param_groups[0]["lr"] is began
    assert on[0] + on[1] == [pytest.approx(setting) for setting in plain]
    if tensor and (filled or RELEASE >= FILLS_TENSORS):
        assert all(holder is holders[0] for holder in holders)


def test_a_setting_that_no_scheduler_moves_may_be_changed_between_experiences():
    model, benchmark = net(), toy()
    optimizer = sgd(model, LR)
    strategy = naive(model, optimizer=optimizer, plugins=[LRSchedulerPlugin(halving(optimizer))])
    strategy.train(benchmark.train_stream[0])
    optimizer.param_groups[0]["weight_decay"] = 0.01
    strategy.train(benchmark.train_stream[1])
    assert optimizer.param_groups[0]["weight_decay"] == 0.01


def test_a_training_that_was_broken_off_leaves_nothing_to_the_next():
    class Fail(BasePlugin):
        failed = False

        def after_training_epoch(self, strategy, **kwargs):
            if strategy.clock.train_exp_epochs == 1 and not self.failed:
                self.failed = True
                raise ZeroDivisionError

    model, benchmark = net(), toy()
    optimizer = sgd(model, LR)
    seen = Recorder(lambda strategy: optimizer.param_groups[0]["lr"], "before_update")
    strategy = naive(
        model, optimizer=optimizer, plugins=[LRSchedulerPlugin(halving(optimizer)), Fail(), seen], train_epochs=3
    )
    with pytest.raises(ZeroDivisionError):
        strategy.train(benchmark.train_stream[0])
    done = len(seen.notes("before_update"))
    strategy.train(benchmark.train_stream[0])
    assert seen.notes("before_update")[done:] == each(0.1, 0.05, 0.025)


def validated(*, name=None, eval_every=1, epochs=3, first_exp_only=False, plugins=()):
    """A strategy whose learning rate follows the loss on the stream "test"; and that rate's holder."""
    model = net()
    optimizer = sgd(model, LR)
    scheduler = ReduceLROnPlateau(optimizer, patience=0)
    plugin = LRSchedulerPlugin(
        scheduler, metric="val_loss", val_stream_name=name, reset_scheduler=False, first_exp_only=first_exp_only
    )
    return naive(
        model, optimizer=optimizer, plugins=[plugin, *plugins], train_epochs=epochs, eval_every=eval_every
    ), scheduler


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize(
    ("name", "eval_every", "message"),
    [
        (
            "tset",
            1,
            r"'val_loss' of stream 'tset' is not measured during training \(evaluated: 'test'\): give the .*name",
        ),
        ("test", -1, "'val_loss' of stream 'test' is not measured during training: give the strategy eval_every=1 and"),
        (None, -1, r"'val_loss' is not measured during training: give .* train\(\) an evaluation stream$"),
        (None, 0, "metric='val_loss' is not measured during training: give the strategy eval_every=1"),
    ],
)
def test_a_validation_loss_that_is_never_measured_is_told_after_one_epoch(name, eval_every, message, epochs):
    benchmark = toy()
    strategy, _ = validated(name=name, eval_every=eval_every, epochs=epochs)
    with pytest.raises(ValueError, match=message):
        strategy.train(benchmark.train_stream[0], [benchmark.test_stream])
    assert strategy.clock.train_iterations == 3


@pytest.mark.parametrize("eval_every", [1, 2])
@pytest.mark.parametrize("name", [None, "test"])
def test_a_validation_loss_that_is_measured_now_and_then_will_do(name, eval_every):
    benchmark = toy()
    strategy, scheduler = validated(name=name, eval_every=eval_every, epochs=3)
    strategy.train(benchmark.train_stream, [benchmark.test_stream])
    assert scheduler.last_epoch == 2 * len(range(0, 3, eval_every))


def test_where_the_rate_stays_or_nothing_is_learned_no_validation_loss_is_asked_for():
    class Stops(BasePlugin):
        def before_training_epoch(self, strategy, **kwargs):
            strategy.stop_training()

    benchmark = toy()
    strategy, _ = validated(first_exp_only=True)
    strategy.train(benchmark.train_stream[0], [benchmark.test_stream])
    strategy.plugins = [plugin for plugin in strategy.plugins if type(plugin).__name__ != "PeriodicEval"]
    strategy.train(benchmark.train_stream[1])
    stopped, _ = validated(eval_every=-1, plugins=[Stops()])
    stopped.train(benchmark.train_stream[0])
    assert stopped.clock.train_iterations == 0


@pytest.mark.parametrize("chosen", [None, "valid", "test"])
def test_a_plateau_is_judged_by_one_series_weighted_by_samples(chosen):
    benchmark, seen, model = toy(), [], net()
    streams = [Stream("valid", [benchmark.test_stream[0].dataset]), benchmark.test_stream]
    optimizer = sgd(model, LR)
    watched = streams[1] if chosen == "test" else streams[0]
    expected = []

    class Judge(Recorder):
        def after_training_epoch(self, strategy, **kwargs):
            with torch.no_grad():
                data = [experience.dataset for experience in watched]
                outputs, targets = model(torch.cat([d.x for d in data])), torch.cat([d.targets for d in data])
                expected.append(float(torch.nn.functional.cross_entropy(outputs, targets)))

    plugin = LRSchedulerPlugin(plateau(seen)(optimizer), metric="val_loss", val_stream_name=chosen)
    strategy = naive(
        model, optimizer=optimizer, plugins=[Judge(), plugin], train_epochs=3, eval_every=1, eval_mb_size=5
    )  # batches of 5, 5 and 2
    strategy.train(benchmark.train_stream[0], streams)
    assert seen == pytest.approx(expected)


class Replacing(BasePlugin):
    """The strategy has a new optimizer from the second experience, or its second epoch, on."""

    def __init__(self, at):
        self.at = at

    def before_training_epoch(self, strategy, **kwargs):
        if (strategy.clock.train_exp_counter, strategy.clock.train_exp_epochs) == self.at:
            strategy.optimizer = torch.optim.Adam(strategy.model.parameters(), LR)


def test_an_optimizer_that_the_scheduler_does_not_move_is_refused_until_there_is_a_scheduler_of_it():
    model, stream = net(), toy().train_stream
    optimizer = sgd(model, LR)
    strategy = naive(model, optimizer=optimizer, plugins=[LRSchedulerPlugin(halving(optimizer))], train_epochs=2)
    strategy.train(stream[0])
    strategy.optimizer = torch.optim.Adam(model.parameters(), LR)
    with pytest.raises(
        ValueError, match="StepLR moves an optimizer, SGD, that is not the strategy's, Adam: make a sch"
    ):
        strategy.train(stream[1])
    recorder = Recorder(lambda strategy: strategy.optimizer.param_groups[0]["lr"], "before_update")
    strategy.plugins[0] = LRSchedulerPlugin(halving(strategy.optimizer))
    strategy.plugins.append(recorder)
    strategy.train(stream[1])
    assert recorder.notes("before_update") == each(0.1, 0.05)


def test_an_optimizer_that_is_replaced_within_an_experience_is_refused_at_the_next_step():
    model = net()
    optimizer = sgd(model, LR)
    plugins = [LRSchedulerPlugin(halving(optimizer)), Replacing((0, 1))]
    with pytest.raises(ValueError, match="that is not the strategy's"):
        naive(model, optimizer=optimizer, plugins=plugins, train_epochs=3).train(toy().train_stream[0])


def test_a_scheduler_that_is_done_has_no_say_in_the_optimizer():
    model = net()
    optimizer = sgd(model, LR)
    plugins = [LRSchedulerPlugin(halving(optimizer), first_exp_only=True), Replacing((1, 0))]
    strategy = naive(model, optimizer=optimizer, plugins=plugins, train_epochs=2)
    strategy.train(toy().train_stream)
    assert strategy.optimizer.param_groups[0]["lr"] == LR


def test_an_optimizer_in_a_wrapper_is_the_one_that_it_holds():
    class Wrapper(torch.optim.Optimizer):
        def __init__(self, inner):
            super().__init__(inner.param_groups, {})
            self.inner, self.param_groups = inner, inner.param_groups

        def step(self, closure=None):
            return self.inner.step(closure)

    model = net()
    optimizer = sgd(model, LR)
    recorder = Recorder(lambda strategy: optimizer.param_groups[0]["lr"], "before_update")
    plugins = [LRSchedulerPlugin(halving(optimizer)), recorder]
    naive(model, optimizer=Wrapper(optimizer), plugins=plugins, train_epochs=2).train(toy().train_stream[0])
    assert recorder.notes("before_update") == each(0.1, 0.05)
