"""What the examples share: two tasks made of scikit-learn's digits, and the table that compares with and without RWalk.

Task A is to name the digits; task B is the same with their pixels in another order.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from rwalk.streams import benchmark, permuted

torch.set_num_threads(1)  # the networks are small

SEEDS = 3
COLUMNS = ("A after A", "A after B", "forgetting of A", "B after B")


def two_tasks(seed: int) -> list[tuple[TensorDataset, tuple[Tensor, Tensor]]]:
    """For each task, training data and test images (N, 64) with labels (N,)."""
    digits = benchmark("split-digits", n_experiences=1)
    train, test = digits.train_stream[0].dataset, digits.test_stream[0].dataset
    pair = permuted("two orders", train, test, 2, seed=seed)
    everything = slice(None)
    return [
        (TensorDataset(*train.dataset.batch(everything)[:2]), tuple(test.dataset.batch(everything)[:2]))
        for train, test in zip(pair.train_stream, pair.test_stream, strict=True)
    ]


def network(seed: int) -> nn.Sequential:
    """A fresh network for 64 pixels and 10 classes."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10))


@torch.no_grad()
def accuracy(model: nn.Module, test: tuple[Tensor, Tensor]) -> float:
    """Share of the images that are named correctly, in %."""
    images, labels = test
    return 100 * (model(images).argmax(dim=1) == labels).float().mean().item()


def compare(run: Callable[[int, bool], tuple[float, float, float]], show: Callable[[str], None] = print) -> None:
    """Run with and without RWalk from several seeds, and show the table.

    Args:
        run: ``(seed, protected)`` to the accuracy on A after A, on A after B and on B after B.
        show: Prints a line.
    """
    show(f"{'seed':>5} {'RWalk':>6} " + " ".join(f"{name:>15}" for name in COLUMNS))
    rows: dict[str, list[list[float]]] = {"no": [], "yes": []}
    for seed in range(SEEDS):
        for name, protected in (("no", False), ("yes", True)):
            before, after, other = run(seed, protected)
            rows[name].append([before, after, before - after, other])
            show(f"{seed:>5} {name:>6} " + " ".join(f"{value:>15.1f}" for value in rows[name][-1]))
    for name, values in rows.items():
        means = torch.tensor(values).mean(dim=0).tolist()
        show(f"{'mean':>5} {name:>6} " + " ".join(f"{value:>15.1f}" for value in means))
