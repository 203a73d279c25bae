"""prepare_rwalk: checkpoints, trackers, skipped steps, clipping, and what it refuses."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.tracking import GeneralTracker
from torch import nn

from contracts.doors_accelerate import accelerator_for
from contracts.problem import LOSS_SCALE, Problem
from reference.problems import assert_same, assert_same_state, weights
from rwalk import RWalk, RWalkError
from rwalk.integrations.accelerate import prepare_rwalk

PROBLEM = Problem()


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


class Script:
    """What a script that is launched with Accelerate holds."""

    def __init__(self, precision="float32", **options):
        self.accelerator = accelerator_for(precision)
        model = PROBLEM.model()
        self.model, self.optimizer = self.accelerator.prepare(model, PROBLEM.optimizer(model))
        self.rwalk = prepare_rwalk(self.accelerator, self.model, self.optimizer, PROBLEM.config)

    def train(self, task, start=0, stop=10, clip=None, overflow_at=None):
        for index, (x, y) in enumerate(PROBLEM.batches(task, 1)):
            if start <= index < stop:
                self.accelerator.backward(PROBLEM.loss(self.model(x), y))
                if index == overflow_at:
                    self.model[0].weight.grad[0, 0] = float("inf")
                if clip is not None:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), clip)
                self.optimizer.step()
                yield index
                self.optimizer.zero_grad()


def test_a_run_goes_on_from_its_checkpoint_bit_for_bit(tmp_path):
    whole = Script()
    list(whole.train(0))
    whole.rwalk.consolidate()
    list(whole.train(1, stop=5))  # a window is open
    whole.accelerator.save_state(tmp_path)
    list(whole.train(1, start=5))
    whole.rwalk.consolidate()

    resumed = Script()
    resumed.accelerator.load_state(tmp_path)
    assert (resumed.rwalk.tasks, resumed.rwalk.steps, resumed.rwalk.window_steps) == (1, 15, 2)
    list(resumed.train(1, start=5))
    resumed.rwalk.consolidate()
    assert_same(weights(resumed.model), weights(whole.model))
    assert_same_state(resumed.rwalk.state_dict(), whole.rwalk.state_dict())


def test_a_checkpoint_without_rwalk_is_refused_by_accelerate(tmp_path):
    accelerator = accelerator_for("float32")
    model = PROBLEM.model()
    accelerator.prepare(model, PROBLEM.optimizer(model))
    accelerator.save_state(tmp_path)
    with pytest.raises(RuntimeError, match="Number of custom checkpoints"):
        Script().accelerator.load_state(tmp_path)


def test_each_of_several_optimizers_is_in_the_checkpoint(tmp_path):
    def script():
        accelerator = accelerator_for("float32")
        model = PROBLEM.model()
        first, second = torch.optim.SGD(model[0].parameters(), lr=0.1), torch.optim.Adam(model[2].parameters())
        model, first, second = accelerator.prepare(model, first, second)
        return accelerator, model, [prepare_rwalk(accelerator, model, each) for each in (first, second)]

    accelerator, model, walks = script()
    for x, y in PROBLEM.batches(0, 1):
        accelerator.backward(PROBLEM.loss(model(x), y))
        for rwalk in walks:
            rwalk.optimizer.step()
            rwalk.optimizer.zero_grad()
    accelerator.save_state(tmp_path)
    restored, _, others = script()
    restored.load_state(tmp_path)
    for rwalk, other in zip(walks, others, strict=True):
        assert rwalk.steps == 10
        assert_same_state(other.state_dict(), rwalk.state_dict())


def test_a_step_that_the_scaler_skips_is_not_counted():
    script = Script("fp16")
    seen = [(script.optimizer.step_was_skipped, script.rwalk.steps) for _ in script.train(0, overflow_at=2)]
    assert seen[:4] == [(False, 1), (False, 2), (True, 2), (False, 3)]
    assert script.rwalk.steps == 9
    assert all(bool(value.isfinite().all()) for value in script.rwalk.importances("fisher").values())
    assert script.accelerator.scaler.get_scale() == LOSS_SCALE / 2


def test_clipped_gradients_are_read_unscaled_and_clipped():
    script = Script("fp16")
    for _ in script.train(0, stop=1, clip=0.01):
        fisher = torch.cat([value.flatten() for value in script.rwalk.importances("fisher").values()])
        assert fisher.sum().sqrt() == pytest.approx(0.01, rel=1e-3)  # g² of a gradient of norm 0.01


def test_another_optimizer_for_the_next_task_is_followed():
    script = Script()
    list(script.train(0))
    script.rwalk.consolidate()
    script.optimizer = script.accelerator.prepare(torch.optim.Adam(script.model.parameters(), lr=0.01))
    script.rwalk.detach()
    script.rwalk.attach(script.optimizer)
    list(script.train(1))
    assert (script.rwalk.tasks, script.rwalk.steps) == (1, 20)


def test_figures_go_to_accelerates_trackers():
    class Notes(GeneralTracker):
        name, requires_logging_directory, tracker = "notes", False, None

        def __init__(self):
            super().__init__()
            self.entries = []

        def log(self, values, step=None, **kwargs):
            self.entries.append((step, values))

    notes = Notes()
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    accelerator = Accelerator(cpu=True, log_with=notes)
    accelerator.init_trackers("run")
    script = Script()
    list(script.train(0))
    script.rwalk.consolidate()
    list(script.train(1))
    accelerator.log({"rwalk/penalty": script.rwalk.penalty().item(), "rwalk/tasks": script.rwalk.tasks}, step=20)
    assert notes.entries == [(20, {"rwalk/penalty": pytest.approx(script.rwalk.penalty().item()), "rwalk/tasks": 1})]
    assert script.rwalk.penalty() > 0


def test_a_model_that_accelerate_compiles_has_its_plain_names():
    accelerator = Accelerator(cpu=True, dynamo_backend="eager")
    model = PROBLEM.model()
    compiled, optimizer = accelerator.prepare(model, PROBLEM.optimizer(model))
    rwalk = prepare_rwalk(accelerator, compiled, optimizer, PROBLEM.config)
    assert compiled is not model
    plain = PROBLEM.model()
    its_walk = RWalk(plain, PROBLEM.optimizer(plain), PROBLEM.config)
    for (x, y), _ in zip(PROBLEM.batches(0, 1), range(3), strict=False):
        for net, opt in ((compiled, optimizer), (plain, its_walk.optimizer)):
            PROBLEM.loss(net(x), y).backward()
            opt.step()
            opt.zero_grad()
    assert_same(rwalk.importances("fisher"), its_walk.importances("fisher"))


def test_an_optimizer_that_is_not_prepared_is_refused():
    accelerator, model = Accelerator(cpu=True), PROBLEM.model()
    with pytest.raises(RWalkError, match=r"\(SGD\) is not prepared: .*accelerator\.prepare\(model, optimizer\)"):
        prepare_rwalk(accelerator, model, PROBLEM.optimizer(model))


def test_an_engine_that_steps_by_itself_is_refused():
    engine = SimpleNamespace(distributed_type=DistributedType.DEEPSPEED)
    with pytest.raises(RWalkError, match="DEEPSPEED steps inside its own engine"):
        prepare_rwalk(engine, nn.Linear(1, 1), None)


def test_preparing_twice_is_refused():
    script = Script()
    with pytest.raises(RWalkError, match="another RWalk is attached"):
        prepare_rwalk(script.accelerator, script.model, script.optimizer)


def test_without_accelerate_the_error_names_the_extra():
    program = "import sys; sys.modules['accelerate'] = None; import rwalk.integrations.accelerate"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "MissingExtraError: prepare_rwalk needs accelerate" in result.stderr
    assert "pip install 'rwalk[accelerate]'" in result.stderr
