"""The template on Accelerate in one process: the same training, accumulation, and mixed precision."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn

from reference.problems import assert_same, assert_same_state, weights
from rwalk import RWalkConfig
from rwalk.training import BasePlugin, ReplayPlugin, RWalkPlugin, WeightAveragePlugin
from training.toys import ITERATION, Recorder, evaluation, naive, net, sgd, toy, training

CONFIG = RWalkConfig(ewc_lambda=5.0, delta_t=2)


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    """Accelerate keeps its settings in singletons."""
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def learned(*, plugins=(), model=None, **options):
    """Train on both experiences without shuffling; the strategy and its RWalk plugin."""
    model, walk = net() if model is None else model, RWalkPlugin.from_config(CONFIG)
    torch.manual_seed(1)
    strategy = naive(model, optimizer=sgd(model, 0.05), plugins=[walk, *plugins], train_epochs=2, **options)
    strategy.train(toy().train_stream, shuffle=False)
    return strategy, walk.rwalk


def test_on_one_cpu_it_is_the_plain_training_bit_for_bit():
    plain, accelerated = learned(), learned(accelerator=Accelerator(cpu=True))
    assert_same(weights(accelerated[0].model), weights(plain[0].model))
    assert_same_state(accelerated[1].state_dict(), plain[1].state_dict())
    benchmark = toy()
    assert accelerated[0].eval(benchmark.test_stream) == plain[0].eval(benchmark.test_stream)
    assert accelerated[0].clock.train_iterations == plain[0].clock.train_iterations == 12


def test_the_hooks_are_the_same():
    benchmark, recorder = toy(), Recorder()
    strategy = naive(plugins=[recorder], accelerator=Accelerator(cpu=True), eval_every=0)
    strategy.train(benchmark.train_stream[0], [benchmark.test_stream])
    plain = training([ITERATION * 3])
    tests = evaluation(3, 3)
    assert recorder.names == [plain[0], *tests, *plain[1:-1], *tests, plain[-1]]


def test_two_accumulated_batches_are_one_of_twice_the_size():
    whole = learned(train_mb_size=6)
    halves = learned(train_mb_size=3, accelerator=Accelerator(cpu=True, gradient_accumulation_steps=2))
    assert halves[0].clock.train_iterations == 2 * whole[0].clock.train_iterations == 16
    for name, value in weights(whole[0].model).items():
        torch.testing.assert_close(weights(halves[0].model)[name], value, rtol=0, atol=1e-6)


def test_rwalk_sees_one_step_for_two_accumulated_batches():
    whole = learned(train_mb_size=6)
    halves = learned(train_mb_size=3, accelerator=Accelerator(cpu=True, gradient_accumulation_steps=2))
    assert whole[1].steps == halves[1].steps == 8
    for kind in ("fisher", "penalty"):
        expected = whole[1].importances(kind)
        for name, value in halves[1].importances(kind).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)


class Overflow(BasePlugin):
    """Every third gradient is infinite, as those in half precision may be."""

    def after_backward(self, strategy, **kwargs):
        if strategy.clock.train_exp_iterations % 3 == 1:
            strategy.model[0].weight.grad.fill_(torch.inf)


@pytest.mark.parametrize(("accumulated", "scaled"), [(2, False), (3, False), (1, True)])
def test_the_average_is_of_steps_as_the_cores_is(accumulated, scaled):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulated)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=16.0) if scaled else None
    model, walk = net(), RWalkPlugin.from_config(CONFIG.replace(anchor_at="average", average_every=2))
    plugins = [walk, WeightAveragePlugin(2), *([Overflow()] if scaled else [])]
    naive(model, train_epochs=4, plugins=plugins, accelerator=accelerator).train(toy().train_stream[0])
    assert walk.rwalk.steps == (4 if accumulated == 3 else 8)
    assert_same(weights(model), walk.rwalk.anchors())


def test_while_gradients_accumulate_nothing_moves():
    class Look(Recorder):
        def before_update(self, strategy, **kwargs):
            self.before = weights(strategy.model)

        def after_update(self, strategy, **kwargs):
            moved = any(not torch.equal(p, self.before[n]) for n, p in strategy.model.named_parameters())
            self.events.append(("moved", moved))

    look = Look()
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    naive(train_mb_size=3, plugins=[look], accelerator=accelerator).train(toy().train_stream[0])
    assert look.notes("moved") == [False, True, False, True]


def test_batches_left_over_at_the_end_of_an_epoch_are_not_carried_into_the_next():
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    _, rwalk = learned(train_mb_size=4, accelerator=accelerator)  # three batches an epoch: two and one
    assert rwalk.steps == 2 * 2 * 2


def test_mixed_precision_runs_and_rwalks_state_is_finite_and_float32():
    types = []
    model = net(dropout=0.3)
    model[0].register_forward_hook(lambda module, args, output: types.append(output.dtype))
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    strategy, rwalk = learned(model=model, accelerator=accelerator)
    assert set(types) == {torch.bfloat16}
    assert strategy.mb_output.dtype is torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert rwalk.tasks == 2
    for kind in ("penalty", "fisher", "score"):
        values = rwalk.importances(kind)
        assert set(values) == set(dict(model.named_parameters()))
        for value in values.values():
            assert value.dtype is torch.float32
            assert value.isfinite().all()
        assert any(value.any() for value in values.values())
    accuracy = strategy.eval(toy().test_stream)["Top1_Acc_Stream/eval_phase/test_stream"]
    assert accuracy > 0.5


def test_replay_works_under_it():
    strategy, _ = learned(plugins=[ReplayPlugin(per_class=2)], accelerator=Accelerator(cpu=True))
    assert len(strategy.mb_y) == 8


def test_no_forward_or_backward_is_added():
    model, passes = net(), []
    model.register_forward_hook(lambda *_: passes.append("forward"))
    model[0].weight.register_hook(lambda gradient: passes.append("backward"))
    learned(model=model, accelerator=Accelerator(cpu=True))
    assert passes == ["forward", "backward"] * 12


def test_the_device_is_the_accelerators():
    accelerator = Accelerator(cpu=True)
    strategy = naive(accelerator=accelerator, device="meta")
    assert strategy.device == accelerator.device == torch.device("cpu")
    assert isinstance(strategy.model, nn.Sequential)
