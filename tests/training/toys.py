"""Small streams, networks and plugins for the tests of the training template."""

from itertools import chain

import torch
from torch import nn

from rwalk.streams import Benchmark, Stream, TensorData, class_incremental
from rwalk.training import HOOKS, BasePlugin, Naive


def blobs(classes: int = 4, per_class: int = 6, seed: int = 0) -> TensorData:
    """A cloud of points around each class's own centre, 4 features."""
    centres = 2 * torch.randn(classes, 4, generator=torch.Generator().manual_seed(99))
    targets = torch.arange(classes).repeat(per_class)
    noise = torch.randn(len(targets), 4, generator=torch.Generator().manual_seed(seed))
    return TensorData(centres[targets] + noise, targets)


def toy(experiences: int = 2, per_class: int = 6) -> Benchmark:
    """Four classes; with two experiences each has ``2 * per_class`` training samples and as many for testing."""
    return class_incremental("toy", blobs(per_class=per_class), blobs(per_class=per_class, seed=1), experiences)


def six_classes(*, task_labels: bool = False) -> Stream:
    """60 samples of 5 numbers in float64, two classes an experience, for twins that go on for a while."""
    x = torch.randn(60, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    data = TensorData(x, torch.arange(60) % 6)
    return class_incremental("six classes", data, data, 3, task_labels=task_labels).train_stream


def net(outputs: int = 4, dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    """Two layers, with BatchNorm and dropout between them if ``dropout`` is above 0."""
    torch.manual_seed(seed)
    middle = [nn.BatchNorm1d(8), nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(nn.Linear(4, 8), *middle, nn.Tanh(), nn.Linear(8, outputs))


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.SGD:
    """SGD with momentum."""
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def naive(model: nn.Module | None = None, **options) -> Naive:
    """A strategy with batches of 4 on a small network."""
    model = net() if model is None else model
    return Naive(**{"model": model, "optimizer": sgd(model), "train_mb_size": 4, **options})


class Recorder(BasePlugin):
    """Writes down every hook called; at the hook ``at`` (or all), with what ``note`` makes of the strategy."""

    def __init__(self, note=None, at: str | None = None) -> None:
        self.note, self.at, self.events = note, at, []

    @property
    def names(self) -> list[str]:
        """The hooks in order."""
        return [name for name, _ in self.events]

    def notes(self, name: str) -> list:
        """What was noted at one hook."""
        return [note for hook, note in self.events if hook == name]


def _recording(name):
    def hook(self, strategy, **kwargs):
        noted = self.note and self.at in (None, name)
        self.events.append((name, self.note(strategy) if noted else kwargs))

    return hook


for _name in HOOKS:
    setattr(Recorder, _name, _recording(_name))

ITERATION = [
    "before_training_iteration",
    "before_forward",
    "after_forward",
    "before_backward",
    "after_backward",
    "before_update",
    "after_update",
    "after_training_iteration",
]
EVAL_ITERATION = ["before_eval_iteration", "before_eval_forward", "after_eval_forward", "after_eval_iteration"]


def evaluation(*batches: int) -> list[str]:
    """The hooks of ``eval`` over experiences of so many batches each."""
    inside = [
        [
            "before_eval_dataset_adaptation",
            "after_eval_dataset_adaptation",
            "before_eval_exp",
            *EVAL_ITERATION * count,
            "after_eval_exp",
        ]
        for count in batches
    ]
    return ["before_eval", *chain(*inside), "after_eval"]


def training(*experiences: list[list[str]]) -> list[str]:
    """The hooks of ``train`` over experiences, each a list of what its epochs hold."""
    inside = [
        [
            "before_train_dataset_adaptation",
            "after_train_dataset_adaptation",
            "before_training_exp",
            *chain(*(["before_training_epoch", *epoch, "after_training_epoch"] for epoch in epochs)),
            "after_training_exp",
        ]
        for epochs in experiences
    ]
    return ["before_training", *chain(*inside), "after_training"]
