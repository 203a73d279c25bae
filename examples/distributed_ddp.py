"""DistributedDataParallel: each process reads the averaged gradient and keeps the same state, without a message more.

Run it: torchrun --standalone --nproc-per-node 2 examples/distributed_ddp.py
    or: accelerate launch --multi_gpu --num_processes 2 examples/distributed_ddp.py
"""

from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler
from two_tasks import Accuracies, accuracy, compare, network, two_tasks

from rwalk import RWalk, RWalkConfig

CONFIG = RWalkConfig(ewc_lambda=0.07, ewc_alpha=0.01, alpha_warmup=True)


def train(model: nn.Module, optimizer: Optimizer, data: TensorDataset) -> None:
    """Your loop. It knows nothing of RWalk."""
    sampler: DistributedSampler[Any] = DistributedSampler(data)
    loader = DataLoader(data, batch_size=32, sampler=sampler)  # in each process
    for epoch in range(8):
        sampler.set_epoch(epoch)
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()


def run(seed: int, protected: bool) -> Accuracies:
    """Learn A, then B; accuracy on A after A, on A after B and on B after B."""
    (train_a, test_a), (train_b, test_b) = two_tasks(seed)
    model = DistributedDataParallel(network(seed))
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    rwalk = RWalk(model, optimizer, CONFIG) if protected else None  # line one, in every process

    train(model, optimizer, train_a)
    if rwalk:
        rwalk.consolidate()  # line two: a task ends
    after_a = accuracy(model, test_a)

    train(model, optimizer, train_b)
    return after_a, accuracy(model, test_a), accuracy(model, test_b)


if __name__ == "__main__":
    if not distributed.is_torchelastic_launched():
        raise SystemExit(f"{__doc__}\nIt has to be launched: a single process has nobody to work with.")
    distributed.init_process_group("gloo")
    compare(run, show=print if distributed.get_rank() == 0 else lambda _: None)
    distributed.destroy_process_group()
