"""One of the processes of ``test_adaptation_wrappers``: trains models that change on its share."""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import nn

from rwalk.models import IncrementalClassifier, MaskedClassifier, MultiHeadClassifier, attach_head
from rwalk.streams import Benchmark, class_incremental
from rwalk.training import BasePlugin, RWalkPlugin
from training.toys import blobs, naive, sgd

HEADS = {
    "masked": lambda: MaskedClassifier(8, 4),
    "growing": lambda: IncrementalClassifier(8),
    "multi": lambda: MultiHeadClassifier(8, n_classes=4),
}


def network(head: str) -> nn.Module:
    """A small body with a head."""
    torch.manual_seed(0)
    return attach_head(nn.Sequential(nn.Linear(4, 8), nn.Tanh()), HEADS[head]())


def tasks() -> Benchmark:
    """Two tasks of two classes each, 24 samples to learn from and 8 to test on."""
    data = blobs(per_class=12), blobs(per_class=4, seed=1)
    return class_incremental("toy", *data, 2, class_order=[2, 0, 3, 1], task_labels=True)


class DrawsAlike(BasePlugin):
    """New rows are the same whatever else has drawn from the generator, such as a data loader."""

    def after_train_dataset_adaptation(self, strategy, **kwargs):
        torch.manual_seed(strategy.experience.current_experience)


def _prepared(model: nn.Module, accelerator: Accelerator) -> bool:
    """Whether Accelerate takes the model for prepared, as far as it remembers what it has prepared."""
    fresh = accelerator.prepare_model(nn.Linear(1, 1))
    remembers = accelerator.prepare_model(fresh) is fresh
    return (accelerator.prepare_model(model) is model) == remembers


def train(head: str, batch_size: int, accelerator: Accelerator | None = None) -> dict:
    """Two experiences of two epochs each, evaluated after each."""
    torch.set_num_threads(1)
    benchmark, model, walk = tasks(), network(head), RWalkPlugin(ewc_lambda=2.0, delta_t=2)
    optimizer = sgd(model, 0.05)
    options = {"train_mb_size": batch_size, "eval_mb_size": 4, "train_epochs": 2, "accelerator": accelerator}
    strategy = naive(model, optimizer=optimizer, plugins=[walk, DrawsAlike()], eval_every=0, **options)
    strategy.train(benchmark.train_stream, [benchmark.test_stream], shuffle=False)
    return {
        "prepared once": accelerator is None or _prepared(strategy.model, accelerator),
        "weights": {name: parameter.detach() for name, parameter in model.named_parameters()},
        "steps": walk.rwalk.steps,
        "importances": walk.rwalk.importances(),
        "matrix": strategy.evaluator.matrices["test"].tolist(),
    }


if __name__ == "__main__":
    unused_heads = DistributedDataParallelKwargs(find_unused_parameters=True)
    shared = Accelerator(cpu=True, kwargs_handlers=[unused_heads])
    found = {head: train(head, 4, shared) for head in HEADS}
    torch.save(found, Path(sys.argv[1]) / f"rank-{shared.process_index}.pt")
    shared.end_training()
