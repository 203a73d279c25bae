"""FSDP2: each process keeps the state of its own shards; the file that they save holds all of it, for any number.

Run it: torchrun --standalone --nproc-per-node 2 examples/distributed_fsdp.py
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler
from two_tasks import Accuracies, accuracy, compare, network, two_tasks

from rwalk import RWalk, RWalkConfig

CONFIG = RWalkConfig(ewc_lambda=0.08, ewc_alpha=0.01, alpha_warmup=True)


def train(model: nn.Module, optimizer: Optimizer, data: TensorDataset) -> None:
    """Your loop. It knows nothing of RWalk."""
    sampler: DistributedSampler[Any] = DistributedSampler(data)
    loader = DataLoader(data, batch_size=64, sampler=sampler)  # in each process
    for epoch in range(8):
        sampler.set_epoch(epoch)
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()


def run(seed: int, protected: bool) -> Accuracies:
    """Learn A, then B; accuracy on A after A, on A after B and on B after B."""
    (train_a, test_a), (train_b, test_b) = two_tasks(seed)
    model = network(seed)
    fully_shard(model)  # first the model,
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)  # then the optimizer,
    rwalk = RWalk(model, optimizer, CONFIG) if protected else None  # then RWalk, in every process

    train(model, optimizer, train_a)
    if rwalk:
        rwalk.consolidate()  # a task ends
        rwalk = reloaded(rwalk, model, optimizer)
    after_a = accuracy(model, test_a)

    train(model, optimizer, train_b)
    return after_a, accuracy(model, test_a), accuracy(model, test_b)


def reloaded(rwalk: RWalk, model: nn.Module, optimizer: Optimizer) -> RWalk:
    """The same from a file, as another day's run reads it."""
    with tempfile.TemporaryDirectory() as folder:
        shared = [folder]
        distributed.broadcast_object_list(shared)  # the first process's
        path = Path(shared[0], "state.safetensors")
        rwalk.save(path)  # in every process: the first one writes what all have
        distributed.barrier()
        rwalk.detach()
        again = RWalk.load(path, model, optimizer)
        distributed.barrier()
    return again


if __name__ == "__main__":
    if not distributed.is_torchelastic_launched():
        raise SystemExit(f"{__doc__}\nIt has to be launched: a single process has nobody to work with.")
    distributed.init_process_group("gloo")
    compare(run, show=print if distributed.get_rank() == 0 else lambda _: None)
    distributed.destroy_process_group()
