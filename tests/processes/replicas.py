"""Scenarios: what DistributedDataParallel must keep the same in every process."""

from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from processes.problem import Case, Run, batch, network, settings, share
from rwalk import RWalk, RWalkConfig

KINDS = {
    "as published": Case(dtype=torch.float32),
    "eager": Case(settings(backend="eager"), dtype=torch.float32),
    "compact": Case(settings(state_dtype="bfloat16"), dtype=torch.float32),
    "compact, eager": Case(settings(state_dtype="bfloat16", backend="eager"), dtype=torch.float32),
    "relative damping": Case(settings(damping_scale="relative"), dtype=torch.float32),
    "loss scaling": Case(dtype=torch.float32, scaler=True),
}
LOADER = RWalkConfig.facil(delta_t=3, ewc_lambda=0.1)


def states(folder: Path) -> dict[str, Any]:
    return {name: _state(Run(case, "ddp")) for name, case in KINDS.items()}


def made_before_wrapping(folder: Path) -> Any:
    """RWalk first, DDP then."""
    run = Run(KINDS["as published"])
    run.model, run.engine = DistributedDataParallel(run.model), "ddp"
    return _state(run)


def _state(run: Run) -> Any:
    for task in range(2):
        run.train(task)
        run.rwalk.consolidate()
    run.train(2, stop=2)
    return run.rwalk.state_dict(), {name: p.detach() for name, p in run.model.named_parameters()}, run.rwalk.steps


def files(folder: Path) -> list[str]:
    """All processes save to paths of their own; then the first one does so alone."""
    run = Run(Case(), "ddp")
    run.train(0)
    run.rwalk.consolidate()
    rank = distributed.get_rank()
    run.rwalk.save(folder / f"by-{rank}.safetensors")
    if rank == 0:
        run.rwalk.save(folder / "by-the-first-alone.safetensors")
    distributed.barrier()
    return sorted(path.stem for path in folder.glob("by-*"))


def from_a_loader(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """A Fisher from passes over data: a share in each process, or all of it in every one."""
    return {"shares": _facil("ddp", wrapped=True), "everything": _facil("ddp", wrapped=False)}


def alone_from_a_loader(pieces: int) -> dict[str, torch.Tensor]:
    """One process, whose batches for the Fisher are cut in so many pieces."""
    return _facil("alone", wrapped=False, pieces=pieces)


def _facil(engine: str, *, wrapped: bool, pieces: int = 1) -> dict[str, torch.Tensor]:
    """``wrapped``: RWalk is given the wrapper, and each process its share."""
    run = Run(Case(LOADER), engine, protected=False)
    bare = run.model.module if engine == "ddp" else run.model
    run.rwalk = RWalk(run.model if wrapped else bare, run.optimizer, run.case.config)
    index, shares = share(engine) if wrapped else (0, 1)
    for task in range(2):
        run.train(task)
        everything = [piece for step in range(4) for piece in batch(run.case, task, step)[0].chunk(pieces)]
        run.rwalk.consolidate([(x.chunk(shares)[index],) for x in everything])
    run.train(2, stop=2)
    return run.results()


def an_empty_share(folder: Path) -> dict[str, torch.Tensor]:
    """One process has all the data for the Fisher, the other none."""
    model = DistributedDataParallel(network((6, 4), torch.float64))
    rwalk = RWalk(model, torch.optim.SGD(model.parameters(), lr=0.1), LOADER)
    x, _ = batch(Case(), 0, 0)
    nn.functional.cross_entropy(model(x), torch.arange(16) % 4).backward()
    rwalk.optimizer.step()
    rwalk.consolidate([(x,)] if distributed.get_rank() == 0 else [])
    return rwalk.importances("fisher")
