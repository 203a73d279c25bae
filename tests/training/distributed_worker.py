"""One of the processes of ``test_distributed``: trains on its share and writes down what it ends with."""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from rwalk import RWalkConfig
from rwalk.streams import Benchmark, Stream
from rwalk.training import BasePlugin, Naive, RWalkPlugin, WeightAveragePlugin
from training.toys import net, sgd, toy

CONFIG = RWalkConfig(ewc_lambda=5.0, delta_t=2)
TEST_SIZES = (13, 7)  # neither divides by two processes, nor by batches of 4


def uneven() -> Benchmark:
    """16 training samples an experience, and test experiences whose last batch has to be padded."""
    benchmark = toy(per_class=8)
    parts = [
        experience.dataset.subset(torch.arange(size))
        for experience, size in zip(benchmark.test_stream, TEST_SIZES, strict=True)
    ]
    return Benchmark("toy", benchmark.train_stream, Stream("test", parts), 4, (4,))


def train(batch_size: int, accelerator: Accelerator | None = None, *more: BasePlugin) -> dict:
    """Two experiences, two epochs each, evaluation after each experience."""
    torch.set_num_threads(1)
    benchmark, model, walk = uneven(), net(), RWalkPlugin.from_config(CONFIG)
    strategy = Naive(
        model=model,
        optimizer=sgd(model, 0.05),
        train_mb_size=batch_size,
        eval_mb_size=4,
        train_epochs=2,
        plugins=[walk, *more],
        eval_every=0,
        accelerator=accelerator,
    )
    metrics = strategy.train(benchmark.train_stream, [benchmark.test_stream], shuffle=False)
    return {
        "metrics": metrics,
        "matrix": strategy.evaluator.matrices["test"].tolist(),
        "evaluated": strategy.evaluator._stream.samples,
        "weights": dict(model.named_parameters()),
        "steps": walk.rwalk.steps,
        "importances": {kind: walk.rwalk.importances(kind) for kind in ("penalty", "fisher", "score")},
    }


if __name__ == "__main__":
    shared = Accelerator(cpu=True)
    found = train(4, shared)
    found["processes"] = shared.num_processes
    found["averaged"] = train(4, shared, WeightAveragePlugin(1))["weights"]
    torch.save(found, Path(sys.argv[1], f"rank-{shared.process_index}.pt"))
    torch.distributed.destroy_process_group()
