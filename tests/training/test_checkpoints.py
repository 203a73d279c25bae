"""A training that was interrupted anywhere and goes on ends bit for bit as one that was not."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau

from reference.problems import assert_same, weights
from rwalk.core import RWalkConfig
from rwalk.errors import CheckpointError, RWalkError
from rwalk.models import IncrementalClassifier, MultiHeadClassifier, MultiTaskNetwork
from rwalk.streams import Stream
from rwalk.training import (
    BasePlugin,
    CheckpointPlugin,
    EarlyStoppingPlugin,
    EvaluationPlugin,
    L2SPPlugin,
    LoggingPlugin,
    LRSchedulerPlugin,
    LwFPlugin,
    MASPlugin,
    OptimizerResetPlugin,
    ReplayPlugin,
    RWalkPlugin,
    WeightAveragePlugin,
)
from rwalk.training.plugins.checkpoints import Stopped, checkpoints
from rwalk.training.sealed import read_sealed
from training.toys import Recorder, blobs, naive, net, sgd, six_classes, toy


class Pairs(torch.utils.data.Dataset):
    """Samples one by one, noisy from three generators, so that a DataLoader reads them."""

    def __init__(self, data):
        self.data = data
        self.targets = data.targets

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        x, y, *_ = self.data[index]
        return x + 0.1 * torch.randn(4) + random.random() * float(np.random.rand()), int(y)


def read_one_by_one():
    """Two experiences whose samples no batch takes from memory."""
    return Stream("train", [Pairs(experience.dataset) for experience in toy(per_class=5).train_stream])


def core(**settings):
    return RWalkPlugin.from_config(RWalkConfig(**{"delta_t": 3, "ewc_lambda": 2.0, **settings}))


def scheduled(model):
    optimizer = sgd(model)
    plugins = [LRSchedulerPlugin(ExponentialLR(optimizer, 0.8), step_granularity="iteration")]
    return {"optimizer": optimizer, "plugins": plugins}


def watched(model):
    optimizer = sgd(model)
    plateau = ReduceLROnPlateau(optimizer, patience=0)
    plugins = [
        core(),
        LRSchedulerPlugin(plateau, metric="val_loss", val_stream_name="test"),
        EarlyStoppingPlugin(2, "test", peval_mode="iteration"),
        LoggingPlugin(),
    ]
    options = {"eval_every": 2, "peval_mode": "iteration", "evaluator": EvaluationPlugin(track_training=True)}
    return {"optimizer": optimizer, "plugins": plugins, **options}


def measured(model):
    optimizer = sgd(model)
    plugins = [
        LRSchedulerPlugin(
            ReduceLROnPlateau(optimizer, patience=0, factor=0.5), metric="train_loss", reset_scheduler=False
        )
    ]
    return {"optimizer": optimizer, "plugins": plugins, "eval_every": 3, "peval_mode": "iteration"}


def trained(model, *plugins, **options):
    return {"optimizer": torch.optim.Adam(model.parameters(), 0.01), "plugins": list(plugins), **options}


def growing():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), IncrementalClassifier(8))


def multi():
    torch.manual_seed(0)
    return MultiTaskNetwork(nn.Linear(5, 8).double(), MultiHeadClassifier(8).double())


def dropped():
    return net(dropout=0.3)


class Freezing(BasePlugin):
    """The first layer is frozen from the second epoch of each experience on."""

    def before_training_iteration(self, strategy, **kwargs):
        strategy.model[0].requires_grad_(strategy.clock.train_exp_epochs == 0)


#: By name: a network, what trains it, and the stream.
CASES = {
    "rwalk": (dropped, lambda m: trained(m, core()), toy),
    "one-step windows": (dropped, lambda m: trained(m, core(delta_t=1)), toy),
    "task windows": (dropped, lambda m: trained(m, core(delta_t=None)), toy),
    "avalanche": (dropped, lambda m: trained(m, RWalkPlugin.from_config(RWalkConfig.avalanche(delta_t=3))), toy),
    "agem": (dropped, lambda m: trained(m, RWalkPlugin.from_config(RWalkConfig.preset("agem"))), toy),
    "replay": (dropped, lambda m: trained(m, core(), ReplayPlugin(per_class=3, batch_size_mem=5)), toy),
    "balanced": (dropped, lambda m: trained(m, ReplayPlugin(mem_size=5, batch_size_mem="balanced", seed=3)), toy),
    "reservoir": (
        dropped,
        lambda m: trained(m, ReplayPlugin(mem_size=5, sampler="reservoir", update="iteration")),
        toy,
    ),
    "herding": (dropped, lambda m: trained(m, ReplayPlugin(mem_size=6, sampler="mean-of-features")), toy),
    "two memories": (
        dropped,
        lambda m: trained(m, ReplayPlugin(mem_size=6), ReplayPlugin(mem_size=4, batch_size_mem=1)),
        toy,
    ),
    "scheduler": (dropped, scheduled, toy),
    "optimizer reset": (dropped, lambda m: trained(m, core(), OptimizerResetPlugin()), toy),
    "weight average": (
        dropped,
        lambda m: trained(m, RWalkPlugin.from_config(RWalkConfig(anchor_at="average")), WeightAveragePlugin(2)),
        toy,
    ),
    "weight average, frozen": (dropped, lambda m: trained(m, core(), WeightAveragePlugin(2), Freezing()), toy),
    "measured": (dropped, measured, toy),
    "early stopping": (dropped, watched, toy),
    "mas and lwf": (dropped, lambda m: trained(m, MASPlugin(0.1), L2SPPlugin(0.1), LwFPlugin()), toy),
    "growing": (growing, lambda m: trained(m, core(), LwFPlugin()), lambda: toy(4)),
    "multi head": (multi, lambda m: trained(m, core(), LwFPlugin()), lambda: six_classes(task_labels=True)),
    "data loader": (
        dropped,
        lambda m: trained(m, core(), ReplayPlugin(per_class=2, batch_size_mem=3)),
        read_one_by_one,
    ),
}


def train_stream(made):
    return getattr(made, "train_stream", made)


def run(case, folder, *, stop_at=None, every=0, epochs=2, whole=False):
    """Learn a case's stream, going on from what is in the folder; None if it was stopped."""
    build, options, stream = CASES[case]
    made, model = stream(), build()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    checkpoint = CheckpointPlugin(folder, every=every)

    class Stop(BasePlugin):
        def after_training_iteration(self, strategy, **kwargs):
            if strategy.clock.train_iterations + 1 == stop_at:
                assert checkpoint.stop()

    given = options(model)
    given["plugins"] = [*given["plugins"], checkpoint, Stop()]
    strategy = naive(model, train_epochs=epochs, **given)
    stream, tests = train_stream(made), getattr(made, "test_stream", None)
    streams = None if tests is None else [tests]
    learned = checkpoint.resume(strategy)
    try:
        if whole:
            strategy.train(stream[learned:], streams)
        for experience in [] if whole else stream[learned:]:
            strategy.train(experience, streams)
            if tests is not None:
                strategy.eval(tests)
    except Stopped:
        return None
    held = {name: matrix.tolist() for name, matrix in strategy.evaluator.matrices.items()}
    drawn = torch.rand(1).item(), random.random(), float(np.random.rand())
    metrics = strategy.evaluator.get_last_metrics()
    return weights(strategy.model), strategy.state_dict(), (held, metrics, vars(strategy.clock), drawn)


def same(found, expected):
    assert_same(found[0], expected[0])
    assert found[2] == expected[2]
    for name in ("optimizer", "plugins"):
        assert_same_values(found[1][name], expected[1][name])


def assert_same_values(found, expected):
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, value in expected.items():
            assert_same_values(found[key], value)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same_values(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("case", CASES)
def test_stopped_anywhere_and_going_on_is_as_never_stopped(case, tmp_path):
    expected = run(case, tmp_path / "whole")
    assert checkpoints(tmp_path / "whole") == []
    same(run(case, tmp_path / "often", every=1), expected)  # writing changes nothing
    count = expected[2][2]["train_iterations"]
    stops = [1, count // 2 - 1, count // 2 + 1, count]
    for stop in dict.fromkeys(stops):
        folder = tmp_path / str(stop)
        assert run(case, folder, stop_at=stop) is None
        same(run(case, folder), expected)


@pytest.mark.parametrize("stop", [3, 7, 9])
def test_a_stream_given_in_one_call_goes_on_where_it_was(stop, tmp_path):
    expected = run("replay", tmp_path / "whole", whole=True)
    assert run("replay", tmp_path / "cut", stop_at=stop, whole=True) is None
    same(run("replay", tmp_path / "cut", whole=True), expected)


def test_each_hook_comes_once_in_the_process_that_goes_on(tmp_path):
    def learn(recorder, folder, stop=None):
        checkpoint = CheckpointPlugin(folder, every=0)

        class Stop(BasePlugin):
            def after_training_iteration(self, strategy, **kwargs):
                if strategy.clock.train_iterations + 1 == stop:
                    checkpoint.stop()

        strategy = naive(plugins=[recorder, checkpoint, Stop()], train_epochs=2)
        stream = toy().train_stream
        for experience in stream[checkpoint.resume(strategy) :]:
            strategy.train(experience)

    whole, second = Recorder(), Recorder()
    learn(whole, tmp_path / "whole")
    with pytest.raises(Stopped):
        learn(Recorder(), tmp_path / "cut", stop=4)  # the first batch of the second epoch
    learn(second, tmp_path / "cut")
    begins = ["before_training", "before_train_dataset_adaptation", "after_train_dataset_adaptation"]
    begins += ["before_training_exp", "before_training_epoch"]
    assert second.names[:5] == begins
    begin = [place for place, name in enumerate(whole.names) if name == "before_training_iteration"][4]
    assert second.names[5:] == whole.names[begin:]


def test_loading_processes_and_accumulation_go_on_too(tmp_path):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState

    def learn(folder, stop=None):
        torch.manual_seed(1)
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
        checkpoint, model = CheckpointPlugin(folder, every=0), net(dropout=0.3)

        class Stop(BasePlugin):
            def after_training_iteration(self, strategy, **kwargs):
                if strategy.clock.train_iterations + 1 == stop:
                    checkpoint.stop()

        strategy = naive(model, plugins=[core(delta_t=2), checkpoint, Stop()], accelerator=accelerator, train_epochs=2)
        stream = read_one_by_one()
        try:
            for experience in stream[checkpoint.resume(strategy) :]:
                strategy.train(experience, num_workers=1)
        except Stopped:
            return None
        finally:
            for state in (AcceleratorState, GradientState, PartialState):
                state._reset_state()
        return weights(model), torch.rand(1).item()

    expected = learn(tmp_path / "whole")
    assert learn(tmp_path / "cut", stop=7) is None  # an odd one: it is written when gradients have been used
    found = learn(tmp_path / "cut")
    assert_same(found[0], expected[0])
    assert found[1] == expected[1]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, caplog):
    expected = run("replay", tmp_path / "whole")
    folder = tmp_path / "cut"
    assert run("replay", folder, every=2, stop_at=9) is None
    newest, second, third = checkpoints(folder)  # the last three are kept
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    second.write_bytes(second.read_bytes()[:-1])
    same(run("replay", folder), expected)
    assert [record.getMessage().split(":")[0] for record in caplog.records if "damaged" in record.getMessage()] == [
        f"{newest} is damaged",
        f"{second} is damaged",
    ]
    third.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"none of 3 checkpoints in .* is whole"):
        run("replay", folder)


def test_what_does_not_fit_is_refused(tmp_path):
    assert run("rwalk", tmp_path, stop_at=2) is None
    other = CheckpointPlugin(tmp_path, every=0)
    strategy = naive(net(outputs=7), plugins=[core(), other])
    with pytest.raises(CheckpointError, match="does not fit this model, optimizer or list of plugins"):
        other.resume(strategy)
    strategy = naive(net(dropout=0.3), plugins=[ReplayPlugin(per_class=1), other])
    with pytest.raises(CheckpointError, match="a state of plugin '0:RWalkPlugin'"):
        other.resume(strategy)

    class Stop(BasePlugin):
        pass

    model = dropped()
    strategy = naive(model, **trained(model, core(), other, Stop()))
    assert other.resume(strategy) == 0
    with pytest.raises(CheckpointError, match="made in experience 0 of 2 with 12 samples, and this is experience 1"):
        strategy.train(toy().train_stream[1])


def test_settings_that_cannot_be_are_refused(tmp_path):
    for bad in ({"every": -1}, {"every": 1.5}, {"every": 1, "keep": 0}):
        with pytest.raises(ValueError, match=r"every=|keep="):
            CheckpointPlugin(tmp_path, **bad)
    pair = [CheckpointPlugin(tmp_path, every=0), CheckpointPlugin(tmp_path, every=0)]
    with pytest.raises(RWalkError, match="two CheckpointPlugins"):
        naive(plugins=pair).train(toy().train_stream[0])


def test_a_plugin_that_keeps_an_object_is_named(tmp_path):
    class Keeps(BasePlugin):
        def state_dict(self):
            return {"thing": {"object": object()}}

        def load_state_dict(self, state_dict): ...

    strategy = naive(plugins=[Keeps(), CheckpointPlugin(tmp_path, every=1)])
    with pytest.raises(TypeError, match=r"moment\.strategy\.plugins\.0:Keeps\.thing\.object is object"):
        strategy.train(toy().train_stream[0])
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    assert run("rwalk", tmp_path, every=2, stop_at=4) is None
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*checkpoint-000000000005\.safetensors'"):
        run("rwalk", tmp_path, every=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_checkpoint_holds_values_as_they_are(tmp_path):
    from collections import Counter

    from rwalk.training.sealed import sealed, unsealed, write_sealed

    part = blobs().x
    values = {
        "a": [1, 2.5, float("inf"), None, True, "Δ\n", 2**70, -(2**60)],
        0: (part, part[:2], part.t(), torch.tensor(3, dtype=torch.bfloat16), torch.empty(0, 3)),
        None: {("x", 1): Counter({3: 2})},
    }
    found = unsealed(sealed("test", values), "test")
    assert_same_values(found, values)
    assert type(found[None]["x", 1]) is Counter
    assert type(found[0]) is tuple
    write_sealed(tmp_path / "file", "test", values)
    with pytest.raises(CheckpointError, match="holds a 'test', not a 'checkpoint'"):
        read_sealed(tmp_path / "file", "checkpoint")
    nan = unsealed(sealed("test", float("nan")), "test")
    assert math.isnan(nan)
