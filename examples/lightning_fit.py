"""Lightning: one callback, given to the Trainer of each task.

Run it: python examples/lightning_fit.py
"""

import logging
import warnings

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset
from two_tasks import Accuracies, accuracy, compare, network, two_tasks

from rwalk import RWalkConfig
from rwalk.integrations.lightning import RWalkCallback

CONFIG = RWalkConfig(ewc_lambda=0.07, ewc_alpha=0.01, alpha_warmup=True)

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", ".*(does not have many workers|treespec).*")  # Lightning's advice, and its debts


class Digits(LightningModule):
    """An ordinary module. It knows nothing of RWalk."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.net = network(seed)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002 - Lightning gives both
        """Cross-entropy."""
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def configure_optimizers(self) -> Optimizer:
        """A new Adam for each fit."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def fit(module: Digits, data: TensorDataset, callbacks: list[Callback]) -> None:
    """One task is one fit."""
    trainer = Trainer(
        max_epochs=10,
        accelerator="cpu",
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(data, batch_size=32, shuffle=True))


def run(seed: int, protected: bool) -> Accuracies:
    """Learn A, then B; accuracy on A after A, on A after B and on B after B."""
    (train_a, test_a), (train_b, test_b) = two_tasks(seed)
    module = Digits(seed)
    callbacks: list[Callback] = [RWalkCallback(CONFIG)] if protected else []  # the same object for both fits

    fit(module, train_a, callbacks)
    after_a = accuracy(module.net, test_a)

    fit(module, train_b, callbacks)
    return after_a, accuracy(module.net, test_a), accuracy(module.net, test_b)


if __name__ == "__main__":
    compare(run)
