"""Random settings and histories for property tests."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from rwalk import RWalkConfig

shapes = st.lists(st.lists(st.integers(1, 3), max_size=3).map(tuple), min_size=1, max_size=4)


@st.composite
def configs(draw, **fixed):
    """Any valid config of moderate size; ``fixed`` settings as given."""
    relative = draw(st.booleans())
    settings = {
        "ewc_lambda": draw(st.sampled_from([0.0, 0.1, 1.0, 7.5])),
        "ewc_alpha": draw(st.sampled_from([0.0, 0.01, 0.3, 0.5, 0.9, 1.0])),
        "delta_t": draw(st.sampled_from([1, 2, 3, 5, None])),
        "alpha_warmup": draw(st.booleans()),
        "damping_scale": "relative" if relative else "absolute",
        "damping": draw(st.sampled_from([None, 1e-3, 0.1, 2.0] if relative else [None, 1e-9, 1e-3, 0.1])),
        "fisher_every": draw(st.sampled_from([1, 1, 3])),
        "fisher_start": draw(st.sampled_from(["first", "zero"])),
        "fisher_boundary": draw(st.sampled_from(["keep", "reset"])),
        "fisher_in_score": draw(st.sampled_from(["window_end", "window_start"])),
        "distance": draw(st.sampled_from(["riemannian", "euclidean"])),
        "distance_factor": draw(st.sampled_from([0.5, 1.0])),
        "rectify": draw(st.sampled_from(["window", "task", "penalty"])),
        "window_phase": draw(st.sampled_from(["task", "run"])),
        "score_average": draw(st.sampled_from(["mean", "mean_from_zero", "sum", "accumulate", "latest"])),
        "terms": draw(st.sampled_from(["both", "both", "fisher", "score"])),
        "combine": draw(st.sampled_from(["replace", "replace", "sum", "mean", "max"])),
        "anchors": draw(st.sampled_from(["weighted", "latest"])),
        "anchor_at": draw(st.sampled_from(["last", "average"])),
        "average_every": draw(st.sampled_from([1, 2, 3])),
        "decay": draw(st.sampled_from([1.0, 0.5])),
        "penalty_factor": draw(st.sampled_from([0.5, 1.0])),
        "scaling": draw(st.sampled_from(["max", "minmax", "sum", "none"])),
        "unfinished": draw(st.sampled_from(["flush", "drop", "carry"])),
        "penalty": draw(st.sampled_from(["gradient", "proximal"])),
    }
    return RWalkConfig(**{**settings, **fixed})


@dataclass
class History:
    """Parameters and the gradients they get: a task per list, a step per entry, None where a parameter has none."""

    start: list[Tensor]
    tasks: list[list[list[Tensor | None]]]
    lr: float

    def model(self) -> nn.ParameterDict:
        """The parameters as a fresh model."""
        return nn.ParameterDict({f"p{index}": nn.Parameter(value.clone()) for index, value in enumerate(self.start)})

    def load(self, model: nn.ParameterDict, step: list[Tensor | None]) -> None:
        """Give the model this step's gradients."""
        for index, gradient in enumerate(step):
            model[f"p{index}"].grad = None if gradient is None else gradient.clone()


@st.composite
def histories(draw, dtype=torch.float64, min_scale=-3, max_scale=2):
    """Gradients of any scale, sometimes zero, sometimes absent."""
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    listed = draw(shapes)
    sparsity = draw(st.sampled_from([0.0, 0.0, 0.3]))

    def gradient(shape: tuple[int, ...]) -> Tensor | None:
        chance, scale = torch.rand((), generator=random), draw_scale
        if chance < sparsity:
            return None
        if chance > 1.0 - sparsity / 2:
            return torch.zeros(shape, dtype=dtype)
        return torch.randn(shape, generator=random, dtype=torch.float64).mul(10.0**scale).to(dtype)

    draw_scale = draw(st.integers(min_scale, max_scale))
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=3))
    start = [torch.randn(shape, generator=random, dtype=torch.float64).to(dtype) for shape in listed]
    tasks = [[[gradient(shape) for shape in listed] for _ in range(length)] for length in lengths]
    return History(start, tasks, lr=draw(st.sampled_from([0.0, 1e-3, 0.1])))
