"""Parameters of which every process holds a shard (``DTensor``, as FSDP2 makes them), and what needs all shards.

Each process keeps the state of its own shards beside them. A step needs one number from the others, whether it counts;
a task's end needs a few, and a state that is saved needs the shards put together.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch import distributed as dist

from rwalk.errors import RWalkError

__all__ = [
    "ORDINARY",
    "RELEASE",
    "SHARDS_SINCE",
    "begin_worst",
    "is_sharded",
    "join",
    "layout",
    "local",
    "over_processes",
    "over_replicas",
    "own_share",
    "replicated",
    "show_shards",
    "weights_in_sums",
    "writes_files",
]

#: Types of tensors that are whole and hold their own memory.
ORDINARY = frozenset({Tensor, nn.Parameter})

#: torch's major and minor version, and those from which its sharded parameters are right on every device.
RELEASE = tuple(int(part) for part in torch.__version__.split(".")[:2])
SHARDS_SINCE = (2, 11)


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a ``DTensor``; asks nothing of torch that is not loaded already."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor; the tensor itself if it is whole."""
    if type(tensor) in ORDINARY or not is_sharded(tensor):  # the common case first: this runs for each parameter
        return tensor
    shard: Tensor = tensor._local_tensor  # type: ignore[attr-defined]
    return shard


def join(shard: Tensor, like: Any) -> Tensor:
    """Put a quantity together from all processes' shards, laid out as the parameter ``like`` is.

    A collective operation where ``like`` is sharded.
    """
    if like is None or not is_sharded(like):
        return shard
    whole: Tensor = (
        type(like)
        .from_local(shard, like.device_mesh, like.placements, shape=like.shape, stride=like.stride())
        .full_tensor()
    )
    return whole


def own_share(whole: Tensor, like: Any) -> Tensor:
    """This process's shard of a whole quantity, laid out as the parameter ``like`` is. No communication."""
    if not is_sharded(like):
        return whole
    distribute = sys.modules["torch.distributed.tensor"].distribute_tensor
    placed = distribute(whole.to(local(like).device), like.device_mesh, like.placements, src_data_rank=None)
    return local(placed)


def over_processes(values: Tensor, parameters: Iterable[Any], operation: Literal["max", "min", "sum"]) -> Tensor:
    """Combine numbers that each process has found over its own shards.

    A collective operation where parameters are sharded; else the numbers as they are.

    Args:
        values: What this process has found, any shape. In a sum, ``weights_in_sums`` says how much each parameter's
            numbers count.
        parameters: Over which parameters.
        operation: How numbers of different shards combine.

    Returns:
        The numbers over all shards, the same in every process.
    """
    for _, group, device in _groups(parameters):
        values = values.to(device, copy=True)
        dist.all_reduce(values, getattr(dist.ReduceOp, operation.upper()), group=group)
    return values


def begin_worst(value: Tensor, parameters: Iterable[Any]) -> tuple[Tensor, Any]:
    """Begin to find the largest of a number that each process with shards has.

    Returns:
        It, once the second has been waited for (``wait()``, which on an accelerator does not stop the host).
    """
    work = None
    groups = _groups(parameters)
    for index, (_, group, device) in enumerate(groups):
        value = value.to(device)
        work = dist.all_reduce(value, dist.ReduceOp.MAX, group=group, async_op=index + 1 == len(groups))
    return value, work


def weights_in_sums(parameters: Sequence[Any]) -> list[float]:
    """For each parameter, one over the number of processes that bring the same piece of it into a sum over all.

    It is 1 where all parameters are sharded over the same processes. One that is whole, or sharded over fewer, is held
    several times.
    """
    together = prod(len(ranks) for ranks, _, _ in _groups(parameters))
    return [prod(mesh.size(axis) for mesh, axis in _sharding_axes(p)) / together for p in parameters]


def replicated(model: nn.Module) -> nn.parallel.DistributedDataParallel | None:
    """The wrapper that keeps a model the same in several processes; None if there is none."""
    wrappers = (module for module in model.modules() if isinstance(module, nn.parallel.DistributedDataParallel))
    return next(wrappers, None)


def over_replicas(wrapper: nn.parallel.DistributedDataParallel | None, totals: Sequence[Tensor], count: int) -> int:
    """Add up tensors (in place) and a count over the processes of a wrapper, if there is one."""
    if wrapper is None:
        return count
    counted = torch.tensor(count, device=totals[0].device)
    for total in (*totals, counted):
        dist.all_reduce(total, group=wrapper.process_group)
    return int(counted)


def writes_files() -> bool:
    """Whether this process is the one that writes what all processes have in common."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def layout(parameter: Any) -> Any:
    """How a parameter is sharded, for comparison with ``==``; None if it is whole."""
    if not is_sharded(parameter):
        return None
    return parameter.device_mesh, parameter.placements, parameter.shape


def show_shards(model: nn.Module) -> None:
    """Have a model's ``named_parameters`` show the shards that the optimizer moves. No communication.

    After a forward pass without a backward pass (an evaluation), FSDP2 leaves gathered parameters in their place.

    Raises:
        RWalkError: The model is wrapped by FSDP1, which leaves each process flat pieces that show no layout; or it is
            sharded by a torch whose gathered parameters may be wrong.
    """
    if RELEASE < SHARDS_SINCE and any(is_sharded(parameter) for parameter in model.parameters()):
        raise RWalkError(
            f"sharded parameters (FSDP2, tensor parallelism) need torch ≥ {'.'.join(map(str, SHARDS_SINCE))}, and this "
            f"is {torch.__version__}, which puts them together wrongly on some devices: use "
            "DistributedDataParallel, or a newer torch"
        )
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None:
        return
    for module in model.modules():
        if isinstance(module, fsdp.FullyShardedDataParallel):
            raise RWalkError(
                "FullyShardedDataParallel (FSDP1) flattens parameters, and their layout over processes is lost: shard "
                "the model with torch.distributed.fsdp.fully_shard (FSDP2; Accelerate's fsdp_version: 2)"
            )
        if isinstance(module, fsdp.FSDPModule):
            module.reshard()


def _sharding_axes(parameter: Any) -> list[tuple[Any, int]]:
    """The mesh and those of its dimensions over which a parameter is sharded."""
    if not is_sharded(parameter):
        return []
    mesh = parameter.device_mesh
    return [(mesh, axis) for axis, placement in enumerate(parameter.placements) if not placement.is_replicate()]


def _groups(parameters: Iterable[Any]) -> list[tuple[frozenset[int], Any, str]]:
    """The groups of processes over which parameters are sharded: ranks, group and type of device.

    Each once, in the parameters' order, without those that a larger one contains.
    """
    groups: dict[frozenset[int], tuple[Any, str]] = {}
    for mesh, axis in dict.fromkeys(pair for parameter in parameters for pair in _sharding_axes(parameter)):
        group = mesh.get_group(axis)
        groups.setdefault(frozenset(dist.get_process_group_ranks(group)), (group, mesh.device_type))
    return [(ranks, *found) for ranks, found in groups.items() if not any(ranks < other for other in groups)]
