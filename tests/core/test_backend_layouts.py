"""Eager and fused code agree however parameters and gradients lie in memory, many, huge, late or absent."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from core.kernels import needs_compiler
from reference.replay import distance, train
from rwalk import RWalkConfig
from rwalk.core import eager
from rwalk.core.native import fused

pytestmark = needs_compiler

CONFIG = RWalkConfig(ewc_lambda=0.5, ewc_alpha=0.5, delta_t=3, damping=1e-3)
CONFIGS = {
    "published": CONFIG,
    "one step": CONFIG.replace(delta_t=1),
    "proximal": CONFIG.replace(penalty="proximal", damping_scale="relative", damping=1.0),
    "before": CONFIG.replace(fisher_in_score="window_start", rectify="window", distance_factor=1.0),
    "euclidean": CONFIG.replace(distance="euclidean", rectify="task", fisher_every=2),
    "compact": CONFIG.replace(state_dtype="bfloat16"),
}
SMALL = [(4, 3, 3, 3), (5,), (3, 7), (), (1,), (2, 6, 2, 2)]


def values(*shapes, dtype=torch.float32):
    random = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=random, dtype=torch.float64).to(dtype) for shape in shapes]


def alike(start, config, **how) -> None:
    mine, other = (train(start, config.replace(backend=name), **how) for name in ("fused", "eager"))
    assert distance(mine, other) <= (2.0**-6 if config.state_dtype == "bfloat16" else 1e-6)
    assert mine["score"][-1].any()


def channels_last(tensor: Tensor) -> Tensor:
    return tensor.to(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def transposed(tensor: Tensor) -> Tensor:
    return tensor.transpose(0, -1).contiguous().transpose(0, -1) if tensor.dim() > 1 else tensor


def every_other(tensor: Tensor) -> Tensor:
    return torch.stack([tensor, torch.zeros_like(tensor)], dim=-1)[..., 0]


def off_by_one(tensor: Tensor) -> Tensor:
    """An address that no vector register is aligned to."""
    return torch.cat([torch.zeros(1, dtype=tensor.dtype), tensor.flatten()])[1:].view(tensor.shape)


@pytest.fixture(params=[1, 2])
def threads(request) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lay_out", [channels_last, transposed, every_other, off_by_one])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_memory_layout_changes_nothing(config, lay_out, dtype):
    start = values(*SMALL, dtype=dtype)
    alike(start, config, lay_out=lay_out)
    if dtype is torch.float32:  # in bfloat16 torch's SGD itself rounds by layout
        plain, laid_out = train(start, config), train(start, config, lay_out=lay_out)
        assert distance(laid_out, plain) == 0.0


@pytest.mark.parametrize("scale", [2.0**10, 3.7])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_scaled_gradients(config, scale):
    alike(values(*SMALL), config, scale=scale)
    if scale == 2.0**10 and config.penalty == "proximal":  # then scaling is exact, and nothing is added to it
        plain, scaled = train(values(*SMALL), config), train(values(*SMALL), config, scale=scale)
        assert distance({k: v for k, v in scaled.items() if k != "gradient"}, {
            k: v for k, v in plain.items() if k != "gradient"
        }) == 0.0  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_groups_with_learning_rates_of_their_own_and_missing_gradients(config):
    alike(
        values(*SMALL),
        config,
        lrs=(0.05, 0.0, 0.2),
        absent=lambda step, index: (step + index) % 3 == 0 or (step == 2 and index > 3),
    )


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_growth(config):
    def grow(model: nn.ParameterDict, task: int) -> None:
        if task == 1:
            for parameter in list(model.parameters())[2:4]:
                extra = torch.full_like(parameter.data[:1] if parameter.dim() else parameter.data[None], 0.25)
                parameter.data = torch.cat([parameter.data if parameter.dim() else parameter.data[None], extra])

    alike(values((4, 5), (3,), (2, 3), (4,)), config, change=grow, tasks=3, momentum=0.0)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_hundreds_of_small_parameters_at_odd_places(config):
    alike(values(*[(1 + i % 7,) for i in range(200)]), config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_parameters_cut_into_tiles_and_threads(config, dtype, threads, monkeypatch):
    monkeypatch.setattr(eager, "TILE", 256)
    monkeypatch.setattr(fused, "PARALLEL", 64)
    alike(values((3,), (261,), (1031,), (1,), (40, 50), dtype=dtype), config)


def test_parameters_larger_than_a_tile(threads):
    alike(values((3,), (eager.TILE + 5,), (2 * eager.TILE + 3,)), CONFIG, steps=3)


def test_threads_change_no_bit():
    start = values((7,), (700, 701), (fused.PARALLEL,))
    outcomes = []
    before = torch.get_num_threads()
    for number in (1, 2, 3, 5):
        torch.set_num_threads(number)
        outcomes.append(train(start, CONFIG.replace(backend="fused"), steps=4))
    torch.set_num_threads(before)
    assert [distance(other, outcomes[0]) for other in outcomes[1:]] == [0.0, 0.0, 0.0]
