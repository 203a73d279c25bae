"""Two tasks, from weights and 300 unlabelled samples: RWalk.protect beside what else one would do.

Digits of scikit-learn, and MNIST where RWALK_DATA_DIR has it; B is A with the pixels in another order.

Run it: python examples/weights_only_peers.py
"""

from collections.abc import Iterable, Iterator
from functools import cache

import torch
from keeping import WAYS, Figures, Problem, command, say
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from two_tasks import samples

from rwalk import DataUnavailableError
from rwalk.streams import benchmark, permuted

torch.set_num_threads(1)  # the networks are small

SAMPLES, HELD_OUT = 300, 0.2
Labelled = tuple[Tensor, Tensor]


class Pair:
    """Tasks A and B of a seed, each in three parts: learned, held out, tested."""

    def __init__(self, source: str, seed: int, limit: int) -> None:
        whole = benchmark(source, n_experiences=1)
        pair = permuted("two orders", samples(whole.train_stream[0]), samples(whole.test_stream[0]), 2, seed=seed)
        order = torch.Generator().manual_seed(seed)
        self.tasks = []
        for learned, tested in zip(pair.train_stream, pair.test_stream, strict=True):
            (images, labels, _), (test_images, test_labels, _) = (
                samples(part).batch(slice(None)) for part in (learned, tested)
            )
            chosen = torch.randperm(len(images), generator=order)[:limit]
            images, labels = images.flatten(1)[chosen].clone(), labels[chosen]
            cut = int(len(images) * HELD_OUT)
            self.tasks.append(
                ((images[cut:], labels[cut:]), (images[:cut], labels[:cut]), (test_images.flatten(1), test_labels))
            )


def epochs(model: nn.Module, optimizer: Optimizer, data: Labelled, count: int, batch_size: int) -> None:
    """Your loop. It knows nothing of what it is compared with."""
    images, labels = data
    for _ in range(count):
        for chosen in torch.randperm(len(images)).split(batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, data: Labelled) -> float:
    """In %."""
    return 100 * float((model(data[0]).argmax(dim=1) == data[1]).float().mean())


def adam(parameters: Iterable[nn.Parameter]) -> Optimizer:
    """For both tasks."""
    return Adam(parameters, lr=1e-3)


def two_orders(name: str, source: str, width: int, count: int, limit: int) -> Problem:
    """A network with one hidden layer that has learned A, unwatched.

    Args:
        name: Of the problem.
        source: Of the images.
        width: Of the hidden layer.
        count: Epochs on each task.
        limit: Images of each task that are used to learn.
    """
    pair = cache(lambda seed: Pair(source, seed, limit))

    @cache
    def trained(seed: int) -> dict[str, Tensor]:
        model = fresh(seed)
        epochs(model, adam(model.parameters()), pair(seed).tasks[0][0], count, 32)
        return model.state_dict()

    def fresh(seed: int) -> nn.Sequential:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(pair(seed).tasks[0][0][0].shape[1], width), nn.ReLU(), nn.Linear(width, 10))

    def start(seed: int) -> nn.Module:
        model = fresh(seed)
        model.load_state_dict(trained(seed))
        return model

    def some(seed: int) -> list[tuple[Tensor, Tensor]]:
        (images, labels), *_ = pair(seed).tasks[0]
        return list(zip(images[:SAMPLES].split(50), labels[:SAMPLES].split(50), strict=True))

    def learn(model: nn.Module, optimizer: Optimizer, seed: int, jointly: bool, held_out: bool) -> None:
        tasks = pair(seed).tasks if jointly else pair(seed).tasks[1:]
        parts = [part for task in tasks for part in (task[:1] if held_out else task[:2])]
        images, labels = (torch.cat([part[index] for part in parts]) for index in (0, 1))
        epochs(model, optimizer, (images, labels), count, 32)

    def score(model: nn.Module, seed: int, held_out: bool) -> Figures:
        first, second = (accuracy(model, task[1 if held_out else 2]) for task in pair(seed).tasks)
        return first, second

    def mean_loss(model: nn.Module, batch: Labelled) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    return Problem(
        name=name,
        start=start,
        samples=some,
        old_loss=mean_loss,
        head=lambda model: list(model.children())[-1].parameters(),
        learn=learn,
        score=score,
        optimizer=adam,
        strengths={
            "L2-SP": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
            "EWC": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
            "RWalk.protect": (0.3, 1.0, 3.0, 10.0, 30.0),
        },
        draws=3,
        tells="accuracy in %; EWC has labels, RWalk.protect has none",
    )


def problems(quick: bool) -> Iterator[Problem]:
    """Digits; MNIST if it is there."""
    yield two_orders("digits", "split-digits", 2048, 2 if quick else 15, 400 if quick else 10_000)
    if not quick:
        try:
            benchmark("split-mnist", n_experiences=1)
        except DataUnavailableError as error:
            say(f"MNIST is left out: {error}")
            return
        yield two_orders("MNIST", "split-mnist", 1024, 4, 6_000)


if __name__ == "__main__":
    command(__doc__, problems, seeds=5, methods=list(WAYS))
