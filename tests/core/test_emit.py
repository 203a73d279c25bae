"""The C made from the equations computes what the equations compute."""

from __future__ import annotations

import ctypes
import inspect
from array import array

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.kernels import needs_compiler
from rwalk.core import functional as F
from rwalk.core.native.build import load_library
from rwalk.core.native.emit import c_function

pytestmark = needs_compiler

EQUATIONS = {
    "penalty_gradient": (F.penalty_gradient, {}),
    "loss_change": (F.loss_change, {}),
    "fisher_ema": (F.fisher_ema, {}),
    "fisher_merge": (F.fisher_merge, {}),
    "riemannian_distance": (F.riemannian_distance, {}),
    "euclidean_distance": (F.riemannian_distance, {"fisher": None}),
    "path_score": (F.path_score, {}),
    "proximal_step": (F.proximal_step, {}),
    "combine_importance": (F.combine_importance, {}),
}


def in_place_without_its_result(a: Tensor, b: Tensor, c: float):
    total = torch.mul(a, b)
    same = total.add_(c)
    total.mul_(b)
    return torch.sub(same, a)


def with_operators(a: Tensor, b: Tensor, c: float):
    return (a - b) * (c / 3.0 + 2.0) / (b * b + 1.0)


def written_to_out(a: Tensor, b: Tensor, c: float):
    damped = torch.add(b, c)
    torch.div(a, damped, out=damped)
    return damped


#: In no kernel; written in other ways than what is.
EXAMPLES = {
    function.__name__: (function, {}) for function in (in_place_without_its_result, with_operators, written_to_out)
}
TYPES = {"float": torch.float32, "double": torch.float64}


def arguments(function, fixed):
    listed = [p for p in inspect.signature(function).parameters.values() if p.name != "out" and p.name not in fixed]
    return [(p.name, p.annotation.startswith("Tensor")) for p in listed]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """For each type a library with every function over arrays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RWALK_CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
        libraries = {}
        for kind in TYPES:
            lines = ["#include <stdint.h>", f"#define S {kind}"]
            for name, (function, fixed) in (EQUATIONS | EXAMPLES).items():
                tensors, numbers = iter(range(9)), iter(range(9))
                call = ", ".join(
                    f"in[{next(tensors)}][i]" if is_tensor else f"number[{next(numbers)}]"
                    for _, is_tensor in arguments(function, fixed)
                )
                lines.append(c_function(function, name, **fixed))
                lines.append(f"void all_{name}(int64_t n, const S **in, const double *number, S *out) {{")
                lines.append(f"  for (int64_t i = 0; i < n; i++) out[i] = {name}({call});\n}}")
            libraries[kind] = load_library("\n".join(lines))
        yield libraries


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", EQUATIONS | EXAMPLES)
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), numbers=st.lists(st.floats(0.001, 1.0), min_size=3, max_size=3))
def test_c_is_python(compiled, name, kind, seed, numbers):
    function, fixed = (EQUATIONS | EXAMPLES)[name]
    random = torch.Generator().manual_seed(seed)
    given_arguments, tensors, scalars = dict(fixed), [], []
    for argument, is_tensor in arguments(function, fixed):
        if is_tensor:
            tensors.append(torch.rand(200, generator=random, dtype=torch.float64).to(TYPES[kind]))
            given_arguments[argument] = tensors[-1].clone()
        else:
            scalars.append(numbers[len(scalars)])
            given_arguments[argument] = scalars[-1]
    found = torch.empty(200, dtype=TYPES[kind])
    addresses = array("q", [tensor.data_ptr() for tensor in tensors])
    values = array("d", scalars or [0.0])
    getattr(compiled[kind], f"all_{name}")(
        ctypes.c_int64(200), *(ctypes.c_void_p(pointer) for pointer in (
            addresses.buffer_info()[0], values.buffer_info()[0], found.data_ptr()
        ))
    )  # fmt: skip
    expected = function(**given_arguments)
    epsilon = torch.finfo(TYPES[kind]).eps  # torch may keep a product's digits when it adds to it
    torch.testing.assert_close(found, expected, rtol=4 * epsilon, atol=4 * epsilon * float(expected.abs().max()))


def powers(a: Tensor):
    return a.pow(3)


def with_an_option(a: Tensor, b: Tensor):
    return a.add_(b, alpha=2.0)


def rounding_division(a: Tensor, b: Tensor):
    return torch.div(a, b, rounding_mode="floor")


def negation(a: Tensor):
    return -a


@pytest.mark.parametrize("function", [powers, with_an_option, rounding_division, negation])
def test_what_has_no_c_form_is_refused_by_name(function):
    with pytest.raises(NotImplementedError, match=r"no C form; add one to rwalk\.core\.native\.emit"):
        c_function(function)
