"""DistributedDataParallel: each process reads the averaged gradient and keeps the same state, without a message more.

Run it: torchrun --standalone --nproc-per-node 2 examples/distributed_ddp.py
    or: accelerate launch --multi_gpu --num_processes 2 examples/distributed_ddp.py
"""

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
from two_tasks import accuracy, compare, network, two_tasks

from rwalk import RWalk, RWalkConfig

CONFIG = RWalkConfig(ewc_lambda=0.07, ewc_alpha=0.01, alpha_warmup=True)


def train(model, optimizer, data):
    """Your loop. It knows nothing of RWalk."""
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=32, sampler=sampler)  # in each process
    for epoch in range(8):
        sampler.set_epoch(epoch)
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()


def run(seed, protected):
    """Learn A, then B; accuracy on A after A, on A after B and on B after B."""
    (train_a, test_a), (train_b, test_b) = two_tasks(seed)
    model = DistributedDataParallel(network(seed))
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    if protected:
        rwalk = RWalk(model, optimizer, CONFIG)  # line one, in every process

    train(model, optimizer, train_a)
    if protected:
        rwalk.consolidate()  # line two: a task ends
    after_a = accuracy(model, test_a)

    train(model, optimizer, train_b)
    return after_a, accuracy(model, test_a), accuracy(model, test_b)


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    compare(run, show=print if distributed.get_rank() == 0 else lambda _: None)
    distributed.destroy_process_group()
