"""The Triton kernels do what eager code does, and the device counts steps as the host does."""

import copy
import math
import pickle
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from torch import nn

from core.triton_interpreter import PLACE, needs_triton, triton_kernels
from reference.replay import distance, follow, train
from reference.strategies import configs, histories
from rwalk import RWalk, RWalkConfig, RWalkError
from rwalk.core import ahead, steps
from rwalk.core.native import argument

pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore::RuntimeWarning")]  # masked elements of 0 / 0

SHAPES = ((5, 3), (8,))
LARGE = ((5, 3), (16, 65), (7,))  # more than one program, and with accesses that are not aligned
SETTINGS = {
    "as published": {"delta_t": 4},
    "windows of 1": {"delta_t": 1, "fisher_start": "zero"},
    "phase of the run, flushed": {"delta_t": 3, "window_phase": "run", "unfinished": "flush"},
    "carried": {"delta_t": 4, "unfinished": "carry"},
    "proximal": {"delta_t": 3, "penalty": "proximal"},
    "relative damping": {"delta_t": 3, "damping_scale": "relative", "damping": 0.1},
    "Fisher of the window's start": {"delta_t": 3, "fisher_in_score": "window_start"},
    "Euclidean, rectified": {"delta_t": 3, "distance": "euclidean", "rectify": "window"},
    "Fisher every 3": {"delta_t": 2, "fisher_every": 3},
    "warm-up": {"delta_t": 2, "alpha_warmup": True, "ewc_alpha": 0.3},
    "one window a task": {"delta_t": None, "score_average": "sum"},
}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """Random histories make for many warnings of idle tasks."""
    caplog.set_level("ERROR", logger="rwalk")


def start(dtype=torch.float32, shapes=SHAPES):
    random = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=random, dtype=torch.float64).to(PLACE, dtype) for shape in shapes]


def both(config, *, data=None, steps=5, **options):
    data = start() if data is None else data
    eager = train(data, config.replace(backend="eager"), steps=steps, **options)
    with triton_kernels():
        return train(data, config.replace(backend="fused"), steps=steps, **options), eager


@pytest.mark.parametrize("name", SETTINGS)
def test_the_kernels_are_eager_code(name):
    found, eager = both(RWalkConfig(ewc_lambda=0.3, **{"damping": 1e-3, **SETTINGS[name]}))
    assert distance(found, eager) <= 1e-6


def test_parameters_of_more_than_one_program():
    found, eager = both(RWalkConfig(ewc_lambda=0.3, delta_t=3), data=start(shapes=LARGE))
    assert distance(found, eager) <= 1e-6


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(torch.float32, 3.7), (torch.bfloat16, None), (torch.bfloat16, 3.7), (torch.float16, None), (torch.float64, 3.7)],
)
def test_parameters_of_other_dtypes_and_scaled_gradients(dtype, scale):
    found, eager = both(RWalkConfig(ewc_lambda=1.0, delta_t=3), data=start(dtype), scale=scale)
    assert distance(found, eager) <= (1e-14 if dtype is torch.float64 else 1e-6)


@pytest.mark.parametrize("delta_t", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compact_state_is_rounded_by_the_same_dice(dtype, delta_t):
    config = RWalkConfig(ewc_lambda=1.0, delta_t=delta_t, ewc_alpha=0.1, damping=1e-4, state_dtype="bfloat16")
    found, eager = both(config, data=start(dtype, LARGE))
    assert distance(found, eager) <= 2.0**-6
    for quantity in ("fisher", "score", "importance"):
        assert (found[quantity][-1] != eager[quantity][-1]).double().mean() < 0.01, quantity


def test_parameters_that_rest_close_their_windows():
    found, eager = both(
        RWalkConfig(ewc_lambda=0.3, delta_t=2, damping=1e-3), absent=lambda step, index: index == 1 and step > 3
    )
    assert distance(found, eager) <= 1e-6


@settings(max_examples=4)
@given(configs(scaling="max", penalty="proximal"), histories(torch.float32))
def test_the_kernels_are_eager_code_over_random_settings(config, history):
    history.start = [value.to(PLACE) for value in history.start]
    history.tasks = [[[g if g is None else g.to(PLACE) for g in step] for step in task] for task in history.tasks]
    eager = follow(history, config.replace(backend="eager"))
    with triton_kernels():
        assert distance(follow(history, config.replace(backend="fused")), eager) <= 1e-6


def walk(config, events, *, optimizer=torch.optim.SGD):
    """Steps with made-up gradients; what becomes of them is said by ``events``: "x" not finite, "s" skipped, "." fine.

    Returns:
        The RWalk, and how often the device was asked to count a step.
    """
    model = nn.ParameterDict({"a": nn.Parameter(torch.ones(3, 2)), "b": nn.Parameter(torch.ones(4))}).to(PLACE)
    moved, random = optimizer(model.parameters(), lr=0.1), torch.Generator().manual_seed(3)
    rwalk, asked = RWalk(model, moved, config, attach=False), 0
    for event in events:
        if event == "|":
            rwalk.consolidate()
            continue
        if event == "?":
            assert rwalk.steps >= 0
            continue
        for p in model.values():
            p.grad = torch.randn(p.shape, generator=random).to(PLACE)
        if event == "x":
            model["a"].grad[1, 1] = math.nan
        asked += rwalk._steps.ahead.leads
        rwalk.before_step()
        before = {name: p.detach().clone() for name, p in model.items()}
        moved.step()
        if event in "xs":
            for name, p in model.items():
                p.data.copy_(before[name])
        rwalk.after_step(skipped=torch.tensor(float(event == "s"), device=PLACE) if event in ".s" else False)
    return rwalk, asked


@pytest.mark.parametrize(
    ("delta_t", "penalty", "events"),
    [
        (3, "gradient", "......x....|...s.....x..."),
        (3, "proximal", "....xxs..?...ss.|s...x?..."),
        (1, "proximal", "...s...s...s|x."),
        (1, "gradient", ".....x.s|s...x"),
    ],
)
def test_the_device_counts_as_the_host_does(delta_t, penalty, events):
    config = RWalkConfig(ewc_lambda=0.3, delta_t=delta_t, ewc_alpha=0.5, penalty=penalty)
    host, _ = walk(config.replace(backend="eager"), events)
    with triton_kernels():
        device, asked = walk(config.replace(backend="fused"), events)
        assert asked >= 4
        assert [device.steps, device.task_steps, device.window_steps, device.skipped] == [
            host.steps, host.task_steps, host.window_steps, host.skipped
        ]  # fmt: skip
        found, expected = device.state_dict(), host.state_dict()
    for name, quantities in expected["parameters"].items():
        for quantity, value in quantities.items():
            if isinstance(value, torch.Tensor):
                torch.testing.assert_close(found["parameters"][name][quantity], value, rtol=1e-6, atol=1e-7)
            else:
                assert found["parameters"][name][quantity] == value
    assert {k: v for k, v in found.items() if k not in ("parameters", "config")} == {
        k: v for k, v in expected.items() if k not in ("parameters", "config")
    }


class Recorded:
    """Stands for a CUDA graph: what is launched inside is kept, and run when it is replayed."""

    def __init__(self):
        self.launches = []

    @contextmanager
    def capture(self):
        from rwalk.core.native import kernels

        def kept(kernel):
            return {"__getitem__": lambda _, grid: lambda *args, **how: self.launches.append((kernel, grid, args, how))}

        names = ("advance", "step", "pull")
        stands = {name: type(name, (), kept(getattr(kernels, name)))() for name in names}
        capturing = lambda device: True  # noqa: E731
        with ExitStack() as stack:
            stack.enter_context(patch.multiple(kernels, **stands))
            for module in (argument, ahead, steps):
                stack.enter_context(patch.object(module, "is_capturing", capturing))
            yield

    def replay(self):
        for kernel, grid, args, how in self.launches:
            kernel[grid](*args, **how)


def graphed(backend, number, *, graph, consolidate_at=(), look_at=()):
    """A step whose gradient is the weights; from the fourth on it is replayed."""
    p = nn.Parameter(torch.linspace(0.5, 2.0, 6, device=PLACE))
    model = nn.ParameterDict({"p": p})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    config = RWalkConfig(ewc_lambda=0.1, delta_t=3, backend=backend, ewc_alpha=0.5)
    rwalk, recorded = RWalk(model, optimizer, config, attach=False), Recorded()
    p.grad = torch.empty_like(p)

    def move():
        p.data.mul_(0.9)

    for step in range(number):
        if step in consolidate_at:
            rwalk.consolidate()
        if step in look_at:
            rwalk.importances()
        p.grad.copy_(p.data)
        if graph and step == 4:
            with recorded.capture():
                rwalk.before_step()
                rwalk.after_step()
        if graph and step >= 4:
            recorded.replay()
        else:
            rwalk.before_step()
            rwalk.after_step()
        move()
    return rwalk


def test_a_captured_step_may_be_replayed_and_the_state_asked_for_in_between():
    expected = graphed("eager", 17, graph=False)
    with triton_kernels():
        found = graphed("fused", 17, graph=True, look_at=(7, 8, 13))
        assert (found.steps, found.window_steps) == (expected.steps, expected.window_steps)
        for kind in ("fisher", "score"):
            torch.testing.assert_close(found.importances(kind), expected.importances(kind), rtol=1e-6, atol=1e-7)


def test_a_graph_from_before_consolidate_is_told():
    with triton_kernels():
        rwalk = graphed("fused", 9, graph=True, consolidate_at=(7,))
        with pytest.raises(RWalkError, match="replayed 2 steps that RWalk did not follow"):
            rwalk.importances()
        assert rwalk.task_steps == 0


def test_the_first_steps_cannot_be_captured():
    with triton_kernels():
        p = nn.Parameter(torch.ones(3, device=PLACE))
        rwalk = RWalk(
            nn.ParameterDict({"p": p}), torch.optim.SGD([p], lr=0.1), RWalkConfig(backend="fused"), attach=False
        )
        for _ in range(2):
            p.grad = torch.ones_like(p)
            rwalk.before_step()
            rwalk.after_step()
        with Recorded().capture(), pytest.raises(RWalkError, match="cannot be captured"):
            rwalk.before_step()


def test_memory_that_is_not_there_is_refused():
    with triton_kernels():
        p = nn.Parameter(torch.ones(3, device=PLACE))
        rwalk = RWalk(
            nn.ParameterDict({"p": p}), torch.optim.SGD([p], lr=0.1), RWalkConfig(backend="fused"), attach=False
        )
        p.grad = torch.ones_like(p)
        p.grad.untyped_storage().resize_(4)
        with pytest.raises(RWalkError, match="has no memory of its own"):
            rwalk.before_step()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda rwalk: pickle.loads(pickle.dumps(rwalk))])
def test_a_copy_counts_for_itself(copied):
    with triton_kernels():
        rwalk, _ = walk(RWalkConfig(ewc_lambda=0.3, delta_t=3, backend="fused"), "......")
        assert rwalk._steps.ahead.leads
        again = copied(rwalk)
        for p in again.model.parameters():
            p.grad = torch.ones_like(p)
        again.before_step()
        again.after_step()
        assert (rwalk.steps, again.steps) == (6, 7)
        assert all(torch.equal(v, rwalk.importances("score")[n]) for n, v in copied(rwalk).importances("score").items())


def test_the_device_does_not_count_where_what_rests_is_not_its_own():
    with triton_kernels():
        rwalk, _ = walk(RWalkConfig(delta_t=3, backend="fused"), "......")
        (cohort,) = rwalk._tracker.resident()
        assert ahead.can_lead([cohort], rwalk.config)
        cohort.entries[0].left_at = torch.ones(3, 2, device=PLACE)
        assert not ahead.can_lead([cohort], rwalk.config)
        cohort.entries[0].left_at, cohort.bucket.backend = None, "eager"
        assert not ahead.can_lead([cohort], rwalk.config)
