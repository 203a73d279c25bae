"""What only a GPU can show: whole trainings there, no wait for it in a step, CUDA graphs, scalers, one-GPU FSDP2."""

import copy

import pytest
import torch
from torch import nn

from rwalk import RWalk, RWalkConfig, RWalkError

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning"),
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS:UserWarning"),
    pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream:UserWarning"),
]
CONFIG = RWalkConfig(ewc_lambda=0.5, ewc_alpha=0.3, delta_t=3, damping=1e-3)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 33), nn.Tanh(), nn.Linear(33, 5)).cuda()


def training_step(model, optimizer, x, y):
    """One that a graph can hold."""

    def step():
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def data(steps, seed=0):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, 16, 20, generator=random)
    y = torch.randint(0, 5, (steps, 16), generator=random)
    return list(zip(x.cuda(), y.cuda(), strict=True))


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "fused adamw": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "capturable adam": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01, device="cuda"), capturable=True),
}


def trained(backend, optimizer="sgd", precision="float32", steps=17, overflow_at=None, **settings):
    """Two tasks; in the second the penalty acts."""
    model = network()
    moved = OPTIMIZERS[optimizer](model.parameters())
    rwalk = RWalk(model, moved, CONFIG.replace(backend=backend, **settings))
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10, enabled=precision == "fp16")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    for task in range(2):
        for step, (x, y) in enumerate(data(steps, task)):
            moved.zero_grad()
            with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None):
                loss = nn.functional.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            if step == overflow_at:
                next(model.parameters()).grad[0, 0] = float("inf")
            scaler.step(moved)
            scaler.update()
        rwalk.consolidate()
    return rwalk


def assert_alike(found, expected, tolerance=2e-3):
    assert (found.steps, found.skipped, found.tasks) == (expected.steps, expected.skipped, expected.tasks)
    for kind in ("penalty", "fisher"):
        theirs = expected.importances(kind)
        for name, value in found.importances(kind).items():
            largest = theirs[name].abs().max()
            assert (value - theirs[name]).abs().max() <= tolerance * largest, (kind, name)
    for mine, other in zip(found.model.parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4)


def test_the_kernels_are_taken():
    assert trained("auto").backend == "triton"


@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_training_with_kernels_is_one_with_eager_code(optimizer, precision, penalty):
    options = {"overflow_at": 9 if precision == "fp16" else None, "penalty": penalty}
    found, expected = (trained(backend, optimizer, precision, **options) for backend in ("fused", "eager"))
    assert_alike(found, expected)
    assert found.skipped == (2 if precision == "fp16" and "fused" in optimizer else 0)


def test_two_runs_are_equal_bit_for_bit():
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (trained("fused", state_dtype="bfloat16") for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    for kind in ("penalty", "fisher", "score"):
        assert all(torch.equal(v, second.importances(kind)[n]) for n, v in first.importances(kind).items())


@pytest.mark.parametrize("penalty", ["gradient", "proximal"])
def test_a_step_does_not_wait_for_the_device(penalty):
    model = network()
    optimizer = OPTIMIZERS["fused adamw"](model.parameters())
    rwalk, steps = RWalk(model, optimizer, CONFIG.replace(penalty=penalty)), data(30)
    for task in range(2):
        for step, (x, y) in enumerate(steps):
            torch.cuda.set_sync_debug_mode("error" if step >= 5 else "default")
            try:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        rwalk.consolidate()
        assert rwalk.tasks == task + 1


@pytest.mark.parametrize("optimizer", ["sgd", "capturable adam"])
def test_a_whole_step_in_a_cuda_graph(optimizer):
    """Captured after a few steps, replayed with new data; anew in the second task, where the penalty acts."""

    def run(graphed):
        model = network()
        moved = OPTIMIZERS[optimizer](model.parameters())
        rwalk = RWalk(model, moved, CONFIG)
        x, y = torch.zeros(16, 20, device="cuda"), torch.zeros(16, dtype=torch.int64, device="cuda")

        step, stream = training_step(model, moved, x, y), torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for task in range(2):
                graph = None
                for index, (new_x, new_y) in enumerate(data(25, task)):
                    if graphed and index == 5:
                        graph = torch.cuda.CUDAGraph()
                        moved.zero_grad(set_to_none=True)
                        torch.cuda.synchronize()
                        with torch.cuda.graph(graph, stream=stream):
                            step()
                    x.copy_(new_x)
                    y.copy_(new_y)
                    if graph is None:
                        step()
                    else:
                        graph.replay()
                    if index == 16:
                        assert rwalk.steps == 25 * task + 17  # looks on, and goes on
                        rwalk.importances()
                rwalk.consolidate()
        torch.cuda.synchronize()
        return rwalk

    assert_alike(run(True), run(False), tolerance=1e-4)


def test_a_graph_from_before_consolidate_is_told():
    model = network()
    moved = OPTIMIZERS["sgd"](model.parameters())
    rwalk = RWalk(model, moved, CONFIG)
    step, stream = training_step(model, moved, *data(1)[0]), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(5):
            step()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            step()
        graph.replay()
        rwalk.consolidate()
        graph.replay()
        with pytest.raises(RWalkError, match="replayed 1 steps"):
            rwalk.importances()
        assert rwalk.importances()


def test_forward_and_backward_in_a_graph_and_the_step_outside():
    def run(graphed):
        model = network()
        called = torch.cuda.make_graphed_callables(model, (torch.zeros(16, 20, device="cuda"),)) if graphed else model
        moved = OPTIMIZERS["sgd"](model.parameters())
        rwalk = RWalk(model, moved, CONFIG)
        for x, y in data(20):
            moved.zero_grad()
            nn.functional.cross_entropy(called(x), y).backward()
            moved.step()
        rwalk.consolidate()
        return rwalk

    assert_alike(run(True), run(False), tolerance=1e-4)


def test_steps_on_another_stream():
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = trained("fused")
        expected = trained("eager")
        assert_alike(found, expected)


def test_the_state_moves_between_gpu_and_cpu(tmp_path):
    rwalk = trained("fused")
    rwalk.save(tmp_path / "state.safetensors")
    model = copy.deepcopy(rwalk.model).cpu()
    there = RWalk.load(tmp_path / "state.safetensors", model, torch.optim.SGD(model.parameters(), lr=0.1))
    for name, value in there.importances().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, rwalk.importances()[name].cpu())
    model.cuda()
    for x, y in data(3):
        there.optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        there.optimizer.step()
    assert there.backend == "triton"
    assert there.task_steps == 3


def test_a_thousand_steps_leave_nothing_behind():
    model = network()
    moved = OPTIMIZERS["adam"](model.parameters())
    rwalk, batches = RWalk(model, moved, CONFIG), data(10)

    def run(steps):
        for step in range(steps):
            x, y = batches[step % 10]
            moved.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            moved.step()
        moved.zero_grad()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    before = run(50)
    assert run(1000) == before
    assert rwalk.steps == 1050


def test_fsdp2_on_one_gpu_is_the_plain_training(tmp_path):
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    expected = trained("eager")
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model = network()
        for layer in model:
            if isinstance(layer, nn.Linear):
                fully_shard(layer)
        fully_shard(model)
        moved = OPTIMIZERS["sgd"](model.parameters())
        rwalk = RWalk(model, moved, CONFIG)
        for task in range(2):
            for x, y in data(17, task):
                moved.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                moved.step()
            rwalk.consolidate()
        theirs = expected.importances()
        for name, value in rwalk.importances().items():
            assert (value - theirs[name]).abs().max() <= 2e-3 * theirs[name].max()
    finally:
        dist.destroy_process_group()


def test_the_template_trains_on_the_gpu():
    from rwalk import RWalkPlugin
    from rwalk.streams import Data, TensorData, domain_incremental
    from rwalk.training import SupervisedTemplate

    model = network()
    plugin = RWalkPlugin(ewc_lambda=0.5, delta_t=3)
    strategy = SupervisedTemplate(
        model=model, optimizer=OPTIMIZERS["sgd"](model.parameters()), device="cuda", plugins=[plugin], train_mb_size=16
    )
    sets = [TensorData(*(torch.cat(part).cpu() for part in zip(*data(20, task), strict=True))) for task in range(2)]
    benchmark = domain_incremental("random", [Data(str(task), samples, samples) for task, samples in enumerate(sets)])
    for experience in benchmark.train_stream:
        strategy.train(experience)
        strategy.eval(benchmark.test_stream)
    assert plugin.rwalk.backend == "triton"
    assert plugin.rwalk.tasks == 2
