"""What the examples share: two tasks made of scikit-learn's digits, and the table that compares with and without RWalk.

Task A is to name the digits; task B is the same with their pixels in another order.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from rwalk.streams import Experience, TensorData, benchmark, permuted

torch.set_num_threads(1)  # the networks are small

Accuracies = tuple[float, float, float]  # on A after A, on A after B and on B after B, in %

SEEDS = 3
COLUMNS = ("A after A", "A after B", "forgetting of A", "B after B")


def two_tasks(seed: int) -> list[tuple[TensorDataset, tuple[Tensor, Tensor]]]:
    """For each task, training data and test images (N, 64) with labels (N,)."""
    digits = benchmark("split-digits", n_experiences=1)
    pair = permuted("two orders", samples(digits.train_stream[0]), samples(digits.test_stream[0]), 2, seed=seed)
    tasks = []
    for learned, tested in zip(pair.train_stream, pair.test_stream, strict=True):
        (images, labels, _), (test_images, test_labels, _) = (
            samples(part).batch(slice(None)) for part in (learned, tested)
        )
        tasks.append((TensorDataset(images, labels), (test_images, test_labels)))
    return tasks


def samples(experience: Experience) -> TensorData:
    """What there is to learn in it."""
    if not isinstance(experience.dataset, TensorData):
        raise TypeError(f"{experience.dataset!r} is not in memory")
    return experience.dataset


def network(seed: int) -> nn.Sequential:
    """A fresh network for 64 pixels and 10 classes."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10))


@torch.no_grad()
def accuracy(model: nn.Module, test: tuple[Tensor, Tensor]) -> float:
    """Share of the images that are named correctly, in %."""
    images, labels = test
    return 100 * float((model(images).argmax(dim=1) == labels).float().mean())


def compare(run: Callable[[int, bool], Accuracies], show: Callable[[str], None] = print) -> None:
    """Run with and without RWalk from several seeds, and show the table.

    A number after the script's name says from how many.

    Args:
        run: ``(seed, protected)`` to the accuracy on A after A, on A after B and on B after B.
        show: Prints a line.
    """
    seeds = int(sys.argv[1]) if sys.argv[1:] else SEEDS
    show(f"Task A is learned, then task B, with RWalk and without; seeds: {seeds}; accuracy in %")
    show(f"{'seed':>5} {'RWalk':>6} " + " ".join(f"{name:>15}" for name in COLUMNS))
    rows: dict[str, list[list[float]]] = {"no": [], "yes": []}
    for seed in range(seeds):
        for name, protected in (("no", False), ("yes", True)):
            before, after, other = run(seed, protected)
            rows[name].append([before, after, before - after, other])
            show(f"{seed:>5} {name:>6} " + " ".join(f"{value:>15.1f}" for value in rows[name][-1]))
    for name, values in rows.items():
        means = torch.tensor(values).mean(dim=0).tolist()
        show(f"{'mean':>5} {name:>6} " + " ".join(f"{value:>15.1f}" for value in means))


if __name__ == "__main__":
    sys.stdout.write(f"{__doc__}\nNothing runs here; begin with: python examples/plain_pytorch.py\n")
