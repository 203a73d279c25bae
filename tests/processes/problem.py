"""A small regression, trained alone or in several processes: what every scenario starts from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from rwalk import RWalk, RWalkConfig

BATCH, STEPS = 16, 8  # the batch of all processes together; the steps of a task


def settings(**changes: Any) -> RWalkConfig:
    """Two full windows in a task, and one that is not."""
    return RWalkConfig(**{"ewc_lambda": 0.5, "delta_t": 3, **changes})


@dataclass(frozen=True)
class Case:
    """One way of training. In float64 processes agree far better than float32 could tell."""

    config: RWalkConfig = field(default_factory=settings)
    dtype: torch.dtype = torch.float64
    sizes: tuple[int, ...] = (6, 10, 5, 3)  # 10, 5 and 3 rows do not divide by 4
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
    options: tuple[tuple[str, Any], ...] = (("lr", 0.1), ("momentum", 0.9))
    clip: float | None = None
    microbatches: int = 1
    frozen: int | None = None  # which layer
    scaler: bool = False  # with an overflow in one process's share


def network(sizes: tuple[int, ...], dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(*pair, dtype=dtype) for pair in pairwise(sizes)]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.Tanh())][:-1])


def batch(case: Case, task: int, step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 * task + step)
    shapes = ((BATCH, case.sizes[0]), (BATCH, case.sizes[-1]))
    x, y = (torch.randn(shape, generator=generator, dtype=torch.float64).to(case.dtype) for shape in shapes)
    return x, y


def wrap(model: nn.Sequential, engine: str, **options: Any) -> nn.Module:
    """The model as an engine has it; ``fsdp-part`` shards two layers and leaves the rest to be averaged by hand."""
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    if engine == "ddp":
        return nn.parallel.DistributedDataParallel(model, **options)
    if engine in ("fsdp", "hsdp"):
        options = {"mesh": square() if engine == "hsdp" else None, **options}
        fully_shard(layers[0], **options)
        fully_shard(model, **options)  # which holds the other layers itself
    if engine == "two-meshes":
        fully_shard(layers[0])
        fully_shard(layers[1], mesh=square())
        fully_shard(layers[2])
    if engine == "fsdp-part":
        for layer in layers[:2]:
            fully_shard(layer)
        for parameter in layers[2].parameters():
            parameter.register_post_accumulate_grad_hook(_average)
    if engine == "tp":
        parallelize_module(model, square()["second"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        fully_shard(model, mesh=square()["first"])
    return model


@cache
def square() -> DeviceMesh:
    """Four processes, two by two."""
    return init_device_mesh("cpu", (2, 2), mesh_dim_names=("first", "second"))


def _average(parameter: nn.Parameter) -> None:
    distributed.all_reduce(parameter.grad)
    parameter.grad /= distributed.get_world_size()


def share(engine: str) -> tuple[int, int]:
    """Which share of each batch is this process's, of how many."""
    if engine == "alone":
        return 0, 1
    rank, world = distributed.get_rank(), distributed.get_world_size()
    return (rank // 2, 2) if engine == "tp" else (rank, world)


class Run:
    """A model, its optimizer and its RWalk in an engine."""

    def __init__(self, case: Case, engine: str = "alone", *, protected: bool = True, **options: Any) -> None:
        self.case, self.engine = case, engine
        plain = network(case.sizes, case.dtype)
        if case.frozen is not None:
            plain[case.frozen].requires_grad_(False)
        self.model = wrap(plain, engine, **options)
        self.optimizer = case.optimizer(self.model.parameters(), **dict(case.options))
        self.scaler = torch.amp.GradScaler("cpu", init_scale=256.0) if case.scaler else None
        self.rwalk = RWalk(self.model, self.optimizer, case.config) if protected else None

    def train(self, task: int, start: int = 0, stop: int = STEPS) -> None:
        """Some steps of a task. Each process takes its share of every batch; gradients are means over all of it."""
        index, shares = share(self.engine)
        for step in range(start, stop):
            xs, ys = (part.chunk(shares)[index].chunk(self.case.microbatches) for part in batch(self.case, task, step))
            self.optimizer.zero_grad()
            for number, (x, y) in enumerate(zip(xs, ys, strict=True)):
                with self._synchronising(number == self.case.microbatches - 1):
                    loss = nn.functional.mse_loss(self.model(x), y) / self.case.microbatches
                    if self.scaler is not None and step == 4 and index == 0:
                        loss = loss * float("inf")
                    (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            if self.case.clip is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.case.clip)
            if self.scaler is None:
                self.optimizer.step()
            else:
                self.scaler.step(self.optimizer)
                self.scaler.update()

    def _synchronising(self, now: bool) -> Any:
        if self.engine == "ddp" and not now:
            return self.model.no_sync()
        if self.engine in ("fsdp", "hsdp"):
            self.model.set_requires_gradient_sync(now)
        return nullcontext()

    def results(self) -> dict[str, Tensor]:
        """Weights and importances, whole, under names that do not depend on wrapping."""
        kinds = ("penalty", "fisher", "score")
        found = {f"{kind}/{name}": value for kind in kinds for name, value in self.rwalk.importances(kind).items()}
        found |= {f"anchor/{name}": value for name, value in self.rwalk.anchors().items()}
        for name, value in whole(self.model).items():
            found[f"weights/{name}"] = value
        total = self.rwalk.report().total
        figures = (total.weights, total.importance, total.penalty, total.distance, total.drift, total.ratio or 0.0)
        found["report/"] = torch.tensor(figures, dtype=torch.float64)
        return {**found, "value/": self.rwalk.penalty().detach().reshape(1)}


def whole(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the weights by bare name; a collective operation where they are sharded."""
    return {
        name.removeprefix("module."): (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone()
        for name, p in model.named_parameters()
    }


def two_tasks(case: Case, engine: str = "alone", **options: Any) -> dict[str, Tensor]:
    """Two tasks and the beginning of a third, so that the penalty is not zero."""
    run = Run(case, engine, **options)
    for task in range(2):
        run.train(task)
        run.rwalk.consolidate()
    run.train(2, stop=2)
    return run.results()


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """For each kind of result, the largest difference over the largest value."""
    assert set(found) == set(expected)
    kinds = {name.split("/")[0] for name in expected}
    result = {}
    for kind in kinds:
        names = [name for name in expected if name.startswith(f"{kind}/")]
        largest = max(expected[name].abs().max().item() for name in names)
        assert largest > 0, kind
        result[kind] = max((found[name] - expected[name]).abs().max().item() for name in names) / largest
    return result
