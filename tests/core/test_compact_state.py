"""State in bfloat16: what is summed up over many steps is right on average, and nothing is lost on the way to disk."""

import numpy as np
import pytest
import torch
from torch import nn

from core.kernels import needs_compiler
from rwalk import RWalk, RWalkConfig
from rwalk.core import eager
from rwalk.core.eager import Tile
from rwalk.core.state import Bucket, Tracked

BACKENDS = ["eager", pytest.param("fused", marks=needs_compiler)]
ELEMENTS = 2000


def run(config, steps, gradient=1.0, lr=0.0):
    model = nn.ParameterDict({"p": nn.Parameter(torch.zeros(ELEMENTS))})
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    rwalk = RWalk(model, optimizer, config)
    for _ in range(steps):
        model["p"].grad = torch.full((ELEMENTS,), gradient)
        optimizer.step()
    return rwalk


def test_a_fisher_that_moves_slowly_goes_where_it_goes_in_float32():
    config = RWalkConfig(ewc_alpha=1e-3, fisher_start="zero", backend="eager", delta_t=1)
    expected = run(config, 2000).importances("fisher")["p"][0].item()
    assert expected == pytest.approx(1 - 0.999**2000, rel=1e-4)
    to_nearest = torch.zeros((), dtype=torch.bfloat16)
    for _ in range(2000):
        to_nearest = (0.999 * to_nearest.float() + 1e-3).to(torch.bfloat16)
    assert to_nearest < 0.3 * expected  # where rounding to the nearest gets stuck


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_slow_fisher_does_not_stagnate(backend):
    config = RWalkConfig(ewc_alpha=1e-3, fisher_start="zero", backend=backend, delta_t=1, state_dtype="bfloat16")
    fisher = run(config, 2000).importances("fisher")["p"]
    assert fisher.mean().item() == pytest.approx(1 - 0.999**2000, rel=2e-3)
    assert fisher.std() < 0.05


@pytest.mark.parametrize("delta_t", [1, 2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_long_sum_of_scores_does_not_stagnate(backend, delta_t):
    config = RWalkConfig(delta_t=delta_t, damping=1.0, backend=backend, ewc_alpha=0.0, fisher_start="zero")
    exact, compact = (run(config.replace(state_dtype=d), 1200, 0.3, 0.1) for d in ("float32", "bfloat16"))
    expected = 1200 * 0.3 * 0.03  # ΔL of each step, over a distance of nothing
    assert exact.importances("score")["p"].mean().item() == pytest.approx(expected, rel=1e-4)
    assert compact.importances("score")["p"].mean().item() == pytest.approx(expected, rel=3e-3)


def tile_of(start, size):
    parameter = Tracked("p", nn.Parameter(torch.zeros(1)))
    bucket = Bucket(torch.device("cpu"), torch.float32, {parameter: torch.Size([size])}, compact=True)
    return Tile(bucket, slice(start, start + size), [])


@pytest.mark.parametrize("start", [0, 12345, 2**31 - 3, 2**32 + 7, 2**40 + 1])
@pytest.mark.parametrize("seed", [0, 3, 2**31, 2**32 + 9])
def test_the_dice_are_those_of_32_bit_arithmetic(start, seed):
    with np.errstate(over="ignore"):
        x = np.arange(start, start + 50, dtype=np.uint64).astype(np.uint32) * np.uint32(0x9E3779B1)
        x ^= np.uint32(seed % 2**32)
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
        x = (x ^ (x >> np.uint32(16))) & np.uint32(0xFFFF)
    assert eager._noise(tile_of(start, 50), seed).tolist() == x.tolist()


def test_dice_are_even_and_do_not_know_of_each_other():
    first = eager._noise(tile_of(0, 100_000), 4).double()
    assert first.mean().item() == pytest.approx(2**15, rel=0.01)
    assert first.std().item() == pytest.approx(2**16 / 12**0.5, rel=0.01)
    for other in (eager._noise(tile_of(0, 100_000), seed).double() for seed in (5, 8, 12)):
        assert abs(torch.corrcoef(torch.stack([first, other]))[0, 1]) < 0.02
    assert abs(torch.corrcoef(torch.stack([first[1:], first[:-1]]))[0, 1]) < 0.02


@pytest.mark.parametrize("value", [1.0 + 2**-9, -3.3, 1e-30, 2.0**-140, 65504.0 * 1.001])
def test_a_value_is_stored_as_either_neighbour_and_right_on_average(value):
    tile = tile_of(0, 20_000)
    (kept,) = tile.bucket.require("fisher")
    mean = torch.zeros(20_000, dtype=torch.float64)
    for step in range(20):
        eager.store(tile, "fisher", torch.full((20_000,), value), step)
        mean += kept.double() / 20
    exact = torch.tensor(value).double()  # of the float32
    below = torch.tensor(value).view(torch.int32).bitwise_and(-(1 << 16)).view(torch.float32).double()
    above = torch.tensor(value).view(torch.int32).bitwise_and(-(1 << 16)).add(1 << 16).view(torch.float32).double()
    assert set(kept.double().tolist()) <= {below.item(), above.item()}
    assert abs(mean.mean() - exact) < 0.01 * abs(above - below)


@pytest.mark.parametrize("bits", [0x7FFFFFFF, -1, 0x7FC00000, 0x7F800001])  # the first is what CUDA makes
def test_nan_stays_nan_and_infinity_infinity(bits):
    tile = tile_of(0, 64)
    (kept,) = tile.bucket.require("fisher")
    eager.store(tile, "fisher", torch.full((64,), bits, dtype=torch.int32).view(torch.float32), 1)
    assert bool(kept.isnan().all())
    eager.store(tile, "fisher", torch.full((64,), -torch.inf), 1)
    assert bool((kept == -torch.inf).all())
