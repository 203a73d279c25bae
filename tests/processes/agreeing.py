"""Scenarios: the ways of training, in each engine."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed import get_world_size
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import Shard

from processes.cases import CASES, ONCE, SUMS
from processes.problem import two_tasks

Results = dict[str, dict]


def ddp(folder: Path) -> Results:
    return {name: two_tasks(case, "ddp") for name, case in CASES.items()}


def fsdp(folder: Path) -> Results:
    left_out = ONCE if get_world_size() == 4 else ()
    return {name: two_tasks(case, "fsdp") for name, case in CASES.items() if name not in left_out}


def by_columns(folder: Path) -> Results:
    """Matrices in shards of columns where these divide by the number of processes."""

    def placement(parameter: nn.Parameter) -> Shard:
        return Shard(1) if parameter.ndim == 2 and parameter.shape[1] % get_world_size() == 0 else Shard(0)

    return {name: two_tasks(CASES[name], "fsdp", shard_placement_fn=placement) for name in SUMS}


def zero(folder: Path) -> Results:
    """DDP with an optimizer whose state is in shards, and gradients that are views of what is sent."""

    def optimizer(parameters: Iterable[nn.Parameter], **options: Any) -> ZeroRedundancyOptimizer:
        return ZeroRedundancyOptimizer(parameters, torch.optim.SGD, **options)

    cases = {name: replace(CASES[name], optimizer=optimizer) for name in SUMS}
    return {name: two_tasks(case, "ddp", gradient_as_bucket_view=True) for name, case in cases.items()}


def hsdp(folder: Path) -> Results:
    """Two groups of two: each shard is in two processes."""
    return {name: two_tasks(CASES[name], "hsdp") for name in SUMS}


def tensor_parallel(folder: Path) -> Results:
    """FSDP2 over tensor parallelism: some parameters in four pieces, some in two, each of these twice."""
    return {name: two_tasks(CASES[name], "tp") for name in SUMS}


def partly_sharded(folder: Path) -> Results:
    """Two layers in shards, one whole in every process."""
    return {name: two_tasks(CASES[name], "fsdp-part") for name in SUMS}


def two_meshes(folder: Path) -> Results:
    """Two layers in four pieces, one between them in two, each of these twice."""
    return {name: two_tasks(CASES[name], "two-meshes") for name in SUMS}
