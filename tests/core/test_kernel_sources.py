"""What C and Python say of the kernels' argument and of the equations is the same."""

import ctypes
import subprocess

import pytest
import torch
from torch import nn

from core.kernels import needs_compiler
from rwalk import RWalk, RWalkConfig
from rwalk.core import equations as F
from rwalk.core.native.build import _compiler
from rwalk.core.native.fused import SUPPORTED, Call, program

pytestmark = needs_compiler

BOUNDS = {torch.float32: 2e-7, torch.float64: 4e-16}


def test_the_argument_is_laid_out_as_the_compiler_lays_it_out(tmp_path):
    names = [name for name, _ in Call._fields_]
    prints = "".join(f'printf("%zu %zu\\n", offsetof(Call, {name}), sizeof(((Call *)0)->{name}));' for name in names)
    main = f'int main(void) {{ printf("%zu\\n", sizeof(Call)); {prints} return 0; }}'
    source = "#define LAYOUT_ONLY\n#include <stddef.h>\n#include <stdio.h>\n" + program(SUPPORTED[0]) + main
    (tmp_path / "layout.c").write_text(source)
    subprocess.run([*_compiler(), str(tmp_path / "layout.c"), "-o", str(tmp_path / "layout")], check=True)
    said = subprocess.run([str(tmp_path / "layout")], check=True, capture_output=True, text=True).stdout.split()
    assert int(said[0]) == ctypes.sizeof(Call)
    fields = [getattr(Call, name) for name in names]
    assert list(map(int, said[1:])) == [number for field in fields for number in (field.offset, field.size)]


def kernel_values(dtype, config, gradient, before, importance, anchor, theta):
    """One step of one parameter in C, with everything in it: what it makes of these numbers."""
    model = nn.ParameterDict({"p": nn.Parameter(torch.zeros_like(before))})
    config = config.replace(backend="fused", delta_t=1)
    rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.3), config, attach=False)
    for task in range(2):
        model["p"].grad = torch.ones_like(before)
        rwalk.before_step()
        rwalk.after_step()
        if task == 0:
            rwalk.consolidate()
    (bucket,) = rwalk._tracker.buckets
    rwalk.settle()
    given = {"importance": importance, "anchor": anchor, "fisher": torch.full_like(before, 0.25)}
    for name, value in given.items():
        bucket.flat[name].copy_(value)
    bucket.flat["score"].zero_()
    model["p"].data.copy_(before)
    model["p"].grad = gradient.clone()
    rwalk.before_step()
    pulled = model["p"].grad.clone()
    model["p"].data.copy_(theta)
    rwalk.after_step()
    proximal = model["p"].detach().clone()
    if config.penalty == "proximal":
        model["p"].data.copy_(theta)
    rwalk.settle()
    return pulled, proximal, bucket.flat["fisher"].clone(), bucket.flat["score"].clone()


@pytest.mark.parametrize("dtype", BOUNDS)
def test_each_equation_in_c_is_the_one_in_python(dtype):
    random = torch.Generator().manual_seed(0)
    gradient, before, anchor, theta = (torch.randn(4, 1001, generator=random, dtype=torch.float64)).to(dtype)
    importance = torch.rand(1001, generator=random, dtype=torch.float64).to(dtype)
    config = RWalkConfig(ewc_lambda=0.7, ewc_alpha=0.3, damping=1e-3)
    given = (gradient, before, importance, anchor, theta)
    pulled, _, fisher, score = kernel_values(dtype, config, *given)
    expected = F.fisher_ema(torch.full_like(before, 0.25), gradient, 0.3)
    decrease = before - theta
    change = F.loss_change(torch.zeros_like(before), gradient, decrease)
    scored = F.path_score(change, F.riemannian_distance(expected, decrease), 1e-3)
    near = {"rtol": BOUNDS[dtype], "atol": BOUNDS[dtype]}
    torch.testing.assert_close(fisher, expected, **near)
    torch.testing.assert_close(score, scored, rtol=10 * BOUNDS[dtype], atol=BOUNDS[dtype])
    torch.testing.assert_close(pulled, gradient + F.penalty_gradient(importance, before, anchor, 0.7), **near)
    _, proximal, _, _ = kernel_values(dtype, config.replace(penalty="proximal"), *given)
    torch.testing.assert_close(proximal, F.proximal_step(importance, theta, anchor, 0.7, 0.3), **near)
