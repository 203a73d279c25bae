"""A script for Accelerate: devices, mixed precision, accumulation and several processes are its launcher's business.

Run it: accelerate launch examples/accelerate_launch.py
"""

import tempfile

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset
from two_tasks import Accuracies, accuracy, compare, network, two_tasks

from rwalk import RWalkConfig
from rwalk.integrations.accelerate import prepare_rwalk

CONFIG = RWalkConfig(ewc_lambda=0.07, ewc_alpha=0.01, alpha_warmup=True)


def train(accelerator: Accelerator, model: nn.Module, optimizer: Optimizer, data: TensorDataset) -> None:
    """Accelerate's loop. It knows nothing of RWalk."""
    loader = accelerator.prepare(DataLoader(data, batch_size=16, shuffle=True))
    for _ in range(10):
        for images, labels in loader:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(images), labels)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()


def run(seed: int, protected: bool) -> Accuracies:
    """Learn A, then B; accuracy on A after A, on A after B and on B after B."""
    accelerator = Accelerator(gradient_accumulation_steps=2)
    (train_a, test_a), (train_b, test_b) = (
        (learned, (images.to(accelerator.device), labels.to(accelerator.device)))
        for learned, (images, labels) in two_tasks(seed)
    )
    model = network(seed)
    model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=2e-3))
    rwalk = prepare_rwalk(accelerator, model, optimizer, CONFIG) if protected else None  # line one

    train(accelerator, model, optimizer, train_a)
    if rwalk:
        rwalk.consolidate()  # line two: a task ends
    after_a = accuracy(model, test_a)

    with tempfile.TemporaryDirectory() as folder:
        accelerator.save_state(folder)  # RWalk's state is in it,
        accelerator.load_state(folder)  # and comes back
    train(accelerator, model, optimizer, train_b)
    return after_a, accuracy(model, test_a), accuracy(model, test_b)


if __name__ == "__main__":
    compare(run, show=Accelerator().print)
