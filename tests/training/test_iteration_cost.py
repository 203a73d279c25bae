"""What an iteration of the template runs: a plain loop's operations, and no number read from the device."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from rwalk.metrics.running import RunningMean
from rwalk.streams import Stream, TensorData
from rwalk.training import BasePlugin, EvaluationPlugin, LoggingPlugin, LRSchedulerPlugin
from training.toys import Recorder, naive, net, sgd

READ = "aten._local_scalar_dense.default"
SIZE = 4


class Operations(TorchDispatchMode):
    """Counts tensor operations by name, those of the backward pass included."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def stream(batches):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SIZE * batches, 4, generator=generator)
    return Stream(f"train on {batches}", [TensorData(x, torch.randint(0, 4, (len(x),), generator=generator))])


def each_iteration(run):
    """Operations that ten more batches add, of ``run(stream)``, divided by ten."""
    counts = []
    for batches in (10, 20):
        data = stream(batches)
        run(data)  # momentum buffers and other things that are made once
        with Operations() as operations:
            run(data)
        counts.append(operations.counts)
    assert READ in counts[0]  # labels are checked once, so that a read would be seen
    more = {name: counts[1][name] - counts[0][name] for name in counts[1]}
    return {name: count / 10 for name, count in more.items() if count}


def by_hand(data):
    """A plain loop over batches that are there already."""
    model = net()
    optimizer, criterion = sgd(model), nn.CrossEntropyLoss()
    dataset = data[0].dataset
    batches = list(zip(dataset.x.split(SIZE), dataset.targets.split(SIZE), strict=True))

    def run(_):
        dataset.targets.max().item()
        for x, y in batches:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()

    return run


def training(**options):
    strategy = naive(**options)
    return strategy.train


def test_training_runs_a_plain_loops_operations_and_three_more():
    """One takes the batch, one begins the loss at zero, one adds the criterion to it."""
    counts = []
    for batches in (10, 20):
        run = by_hand(stream(batches))
        run(None)
        with Operations() as operations:
            run(None)
        counts.append(operations.counts.total())
    plain = (counts[1] - counts[0]) / 10
    assert plain > 10  # the reference itself counts
    assert sum(each_iteration(training()).values()) == plain + 3


def test_plugins_that_do_nothing_cost_no_operation():
    assert each_iteration(training(plugins=[BasePlugin(), BasePlugin()])) == each_iteration(training())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"evaluator": EvaluationPlugin(track_training=True)},
        {"plugins": [LoggingPlugin()]},
        {"plugins": [Recorder()]},
    ],
    ids=["nothing", "metrics", "logging", "hooks"],
)
def test_no_iteration_reads_a_number_from_the_device(options):
    assert READ not in each_iteration(training(**options))


def test_no_iteration_reads_the_loss_that_a_scheduler_needs_at_the_end_of_the_epoch():
    model = net()
    optimizer = sgd(model)
    scheduler = LRSchedulerPlugin(torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer), metric="train_loss")
    assert READ not in each_iteration(training(model=model, optimizer=optimizer, plugins=[scheduler]))


def test_no_iteration_of_an_evaluation_reads_a_number_either():
    assert READ not in each_iteration(naive().eval)


def test_metrics_are_read_when_they_are_asked_for_and_once(monkeypatch):
    read, plain = [], RunningMean.__float__
    monkeypatch.setattr(RunningMean, "__float__", lambda mean: read.append(mean) or plain(mean))
    strategy = naive(evaluator=EvaluationPlugin(track_training=True), train_epochs=5)

    class Reads(BasePlugin):
        def after_training(self, strategy, **kwargs):
            assert read == []

    strategy.plugins.append(Reads())
    metrics = strategy.train(stream(3))
    assert strategy.evaluator.get_last_metrics() == metrics
    assert len(read) == len(metrics) == 2
