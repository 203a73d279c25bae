"""One process of a distributed training: what it sends, and how long its steps take, with rwalk and without.

Started by ``scaling`` through ``torch.distributed.run``; the first process writes what it found to a file.
"""

from __future__ import annotations

import json
import sys
import time
from math import prod
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

from benchmarks.cases import OPTIMIZERS
from benchmarks.models import mlp, size
from benchmarks.subjects import attached, past_first_task, plain_loop
from benchmarks.timing import Run, interleave, visit
from benchmarks.traffic import FLOAT

__all__ = ["collectives", "main"]

STEPS = 11


def collectives(work: Run) -> tuple[int, int]:
    """Number of collective operations while 11 steps run, and bytes handed to them.

    Torch's profiler reports every operation of the backend with its shapes, whoever starts it: DDP's reducer in C++ or
    a call from Python. Numbers are counted at four bytes.
    """
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        work(STEPS)
    found = [event for event in profiler.events() if event.name.startswith("gloo:")]
    return len(found), FLOAT * sum(prod(shape) for event in found for shape in event.input_shapes)


def main(target: Path, budget: float) -> None:
    """Measure in this process, together with the others of its group.

    Raises:
        RuntimeError: The count does not notice a collective operation that is there.
    """
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    network = mlp(784, 2048, 2048, 10)
    model = DistributedDataParallel(network)
    optimizer = OPTIMIZERS["sgd"](model)
    torch.manual_seed(dist.get_rank())
    batches = [(torch.randn(16, 784), torch.randint(0, 10, (16,))) for _ in range(4)]
    plain = plain_loop(model, optimizer, batches)
    plain(3)
    bare = collectives(plain)
    extra = collectives(lambda steps: (plain(steps), dist.all_reduce(torch.ones(1000))))
    if (extra[0] - bare[0], extra[1] - bare[1]) != (1, 1000 * FLOAT):
        raise RuntimeError(f"{extra=} {bare=}: expected one more collective operation, of 4000 bytes")
    rwalk, _ = past_first_task(model, optimizer, plain)
    began = time.perf_counter()
    rwalk.attach()
    with_rwalk = collectives(lambda steps: (plain(steps), rwalk.consolidate()))
    rwalk.detach()
    turns = {"bare": visit(plain, 10), "rwalk": attached(rwalk, visit(plain, 10), 10)}
    repeats = max(3, min(10, round(budget / (4 * (time.perf_counter() - began)))))
    agreed = torch.tensor(repeats)
    dist.broadcast(agreed, 0)
    rounds = interleave(turns, budget=0.0, at_least=int(agreed))
    if dist.get_rank() == 0:
        report = {"processes": dist.get_world_size(), "parameters": size(network), "backend": rwalk.backend}
        report |= {"collectives": bare[0], "collectives_with_rwalk": with_rwalk[0]}
        report |= {"bytes": bare[1], "bytes_with_rwalk": with_rwalk[1]}
        report |= {f"{name}_ms": 1e3 * rounds.summary(lambda s, n=name: s[n]).median for name in turns}
        target.write_text(json.dumps(report), encoding="utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
