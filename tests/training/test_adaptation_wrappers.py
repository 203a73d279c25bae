"""Models that change inside torch.compile, DDP and Accelerate."""

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

from models.arriving import experience
from processes.launching import torchrun
from reference.problems import assert_same, assert_same_state
from rwalk import RWalkError
from rwalk.core.names import canonical_name
from rwalk.core.sharding import RELEASE, SHARDS_SINCE
from rwalk.models import IncrementalClassifier, MaskedClassifier, MultiHeadClassifier, attach_head
from rwalk.training import RWalkPlugin, adapt_model
from rwalk.training.adaptation import rewrapped
from training import adaptation_worker
from training.adaptation_worker import HEADS, DrawsAlike, network, tasks
from training.toys import naive, sgd

# torch.compile looks at features where it leaves a graph, and silences this by a filter that ours overrides.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


def same(model):
    return model


def compiled(model):
    return torch.compile(model, backend="eager")


def ddp(model):
    return DistributedDataParallel(model, find_unused_parameters=True)


@pytest.fixture
def alone(tmp_path):
    """A process group of one."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def accelerate():
    """Accelerate keeps its settings in singletons."""
    yield Accelerator
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def learned(head, wrap=same, **options):
    """Train on both experiences with an evaluation of all after each; weights, RWalk's state, accuracies."""
    model, walk = wrap(network(head)), RWalkPlugin(ewc_lambda=2.0)
    benchmark = tasks()
    plugins = [walk, DrawsAlike()]
    strategy = naive(model, optimizer=sgd(model, 0.05), plugins=plugins, train_epochs=2, **options)
    for each in benchmark.train_stream:
        strategy.train(each, shuffle=False)
        strategy.eval(benchmark.test_stream)
    weights = {canonical_name(name): parameter.detach() for name, parameter in strategy.model.named_parameters()}
    return weights, walk.rwalk.state_dict(), strategy.evaluator.matrices["test"].tolist(), strategy


def assert_same_training(found, expected):
    assert_same(found[0], expected[0])
    assert_same_state(found[1], expected[1])
    assert found[2] == expected[2]


@pytest.mark.parametrize("head", HEADS)
def test_compiled_models_train_alike(head):
    torch._dynamo.reset()
    assert_same_training(learned(head, compiled), learned(head))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("wrap", [ddp, lambda model: ddp(compiled(model))], ids=["DDP", "DDP(compile)"])
def test_ddp_models_train_alike_and_are_wrapped_anew(alone, head, wrap):
    torch._dynamo.reset()
    found = learned(head, wrap)
    assert_same_training(found, learned(head))
    model = found[3].model
    assert isinstance(model, DistributedDataParallel)
    assert model.find_unused_parameters
    laid_out = {id(parameter) for parameter in model._module_parameters}
    assert laid_out == {id(parameter) for parameter in model.parameters()}


def test_a_new_wrapper_has_its_old_ones_mode_and_leaves_those_inside(alone):
    model = ddp(network("growing")).eval()
    model.module.classifier.train()
    renewed = rewrapped(model)
    assert [m.training for m in renewed.modules()] == [m.training for m in model.modules()]
    assert not renewed.training


def test_what_does_not_change_is_not_wrapped_anew(alone):
    strategy = naive(ddp(network("masked")))
    before = strategy.model
    strategy.train(tasks().train_stream)
    assert strategy.model is before


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_accelerate_trains_alike(accelerate, head, precision):
    found = learned(head, accelerator=accelerate(cpu=True, mixed_precision=precision))
    if precision == "no":
        assert_same_training(found, learned(head))
    assert all(value.isfinite().all() and value.dtype is torch.float32 for value in found[0].values())
    assert found[1]["tasks"] == 2
    prepared = found[3].engine.accelerator._models
    assert prepared == [found[3].model]


@pytest.mark.parametrize("head", HEADS)
def test_two_processes_learn_what_one_with_batches_twice_the_size_learns(head, ranks):
    first, second = (rank[head] for rank in ranks)
    whole = adaptation_worker.train(head, 8)
    assert_same(first["weights"], second["weights"])
    assert first["steps"] == second["steps"] == whole["steps"] == 12
    for name, value in whole["weights"].items():
        torch.testing.assert_close(first["weights"][name], value, rtol=0, atol=1e-5)
    for name, value in whole["importances"].items():
        torch.testing.assert_close(first["importances"][name], value, rtol=0, atol=1e-3)
    assert first["matrix"] == second["matrix"] == whole["matrix"]
    assert first["prepared once"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes ended with."""
    folder = tmp_path_factory.mktemp("ranks")
    done = torchrun(2, adaptation_worker.__file__, folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(2)]


def test_ddp_inside_compile_is_refused_when_it_grows(alone):
    model = compiled(ddp(network("growing")))
    with pytest.raises(RWalkError, match=r"cannot be wrapped as torch.compile\(DDP\(model\)\): compile it first"):
        naive(model).train(tasks().train_stream)


def test_ddp_with_a_communication_hook_is_refused_when_it_grows(alone):
    model = ddp(network("growing"))
    model.register_comm_hook(None, default_hooks.fp16_compress_hook)
    with pytest.raises(RWalkError, match="DDP model with a communication hook cannot grow"):
        rewrapped(model)


@pytest.mark.skipif(RELEASE < SHARDS_SINCE, reason="this torch's shards are refused")
def test_sharded_models_keep_their_outputs(alone):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1,))
    for head, message in (
        (IncrementalClassifier(8), "a sharded output layer cannot grow"),
        (MultiHeadClassifier(8), "got new parameters after it was sharded"),
    ):
        model = attach_head(nn.Linear(4, 8), head)
        fully_shard(model, mesh=mesh)
        with pytest.raises(RWalkError, match=message):
            adapt_model(model, sgd(model), experience(0, 3))
    model = attach_head(nn.Linear(4, 8), MaskedClassifier(8, 4))
    fully_shard(model, mesh=mesh)
    assert not adapt_model(model, sgd(model), experience(0, 3))
    assert set(model(torch.randn(20, 4)).argmax(dim=1).tolist()) <= {0, 3}
