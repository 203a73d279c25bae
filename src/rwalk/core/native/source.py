"""The C program of one combination of types: types as macros, then the equations, then the kernels."""

from __future__ import annotations

from importlib.resources import files

import torch

from rwalk.core import functional as F
from rwalk.core.native.emit import c_function

__all__ = ["SUPPORTED", "Types", "program"]

C_TYPES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bf16"}

Types = tuple[torch.dtype, torch.dtype, torch.dtype]

#: What there are kernels for: dtype of the parameters, of the arithmetic, and of compact quantities.
SUPPORTED: tuple[Types, ...] = (
    (torch.float32, torch.float32, torch.float32),
    (torch.float64, torch.float64, torch.float64),
    (torch.bfloat16, torch.float32, torch.float32),
    (torch.float32, torch.float32, torch.bfloat16),
    (torch.bfloat16, torch.float32, torch.bfloat16),
)


def program(types: Types) -> str:
    """The C program for one combination of types."""
    parameter, state, compact = (C_TYPES[dtype] for dtype in types)
    macros = {
        "P": parameter,
        "S": state,
        "Q": compact,
        "LOAD_P(x)": "from_bf16(x)" if parameter == "bf16" else "(x)",
        "STORE_P(x)": "round_to_nearest(x)" if parameter == "bf16" else "(x)",
        "LOAD_Q(x)": "from_bf16(x)" if compact == "bf16" else "(x)",
        "STORE_Q(x)": "round_to_nearest(x)" if compact == "bf16" else "(x)",
        "STORE_A(x, k)": "round_at_random(x, AT(k))" if compact == "bf16" else "(x)",
    }
    equations = (
        c_function(F.penalty_gradient),
        c_function(F.loss_change),
        c_function(F.fisher_ema),
        c_function(F.riemannian_distance),
        c_function(F.riemannian_distance, "euclidean_distance", fisher=None),
        c_function(F.path_score),
        c_function(F.proximal_step),
    )
    here = files(__package__)
    prelude, kernels = ((here / name).read_text(encoding="utf-8") for name in ("prelude.c", "kernels.c"))
    return "\n".join([prelude, *(f"#define {name} {value}" for name, value in macros.items()), *equations, kernels])
