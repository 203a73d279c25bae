"""The code blocks of docs/models.md run, one after another, and its table is true."""

import re
from pathlib import Path

import torch
from torch import nn

from rwalk.models import MODELS, adapt
from rwalk.streams import class_incremental
from rwalk.training import Naive
from training.toys import blobs, toy

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def batches_of(experience):
    data = experience.dataset
    return [data.batch(slice(start, start + 4)) for start in range(0, len(data), 4)]


def test_the_pages_code_runs(tmp_path):
    torch.manual_seed(0)
    tasks = class_incremental("toy", blobs(), blobs(seed=1), 2, task_labels=True)
    names = {
        "torch": torch,
        "body": nn.Sequential(nn.Linear(4, 16), nn.Tanh()),
        "benchmark": toy(),
        "tasks": tasks,
        "batches_of": batches_of,
        "loss_function": nn.functional.cross_entropy,
        "folder": tmp_path,
    }
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    by_name, template, own_loop, checkpoint, own_module = (compile(block, "models.md", "exec") for block in blocks)

    exec(by_name, names)
    assert type(names["network"].classifier).__name__ == "MultiHeadClassifier"

    exec(template, names)
    assert isinstance(names["strategy"], Naive)
    assert names["model"].classifier.classifier.out_features == 4
    assert names["strategy"].evaluator.matrices["test"].tolist()[-1][1] > 0.5

    exec(own_loop, names)
    model, x, labels = names["model"], torch.randn(3, 4), torch.tensor([0, 1, 1])
    assert names["rwalk"].tasks == 2
    assert set(model.classifier.classifiers) == {"0", "1"}
    moved = {id(p) for p in names["optimizer"].param_groups[0]["params"]}
    assert moved == {id(p) for p in model.parameters()}

    exec(checkpoint, names)
    assert torch.equal(names["resumed"](x, labels), model(x, labels))
    assert len(names["optimizer"].state) == len(list(model.parameters()))

    exec(own_module, names)
    module = names["SeenClasses"]()
    adapt(nn.Sequential(module), tasks.train_stream[1])
    assert module.seen == set(tasks.train_stream[1].classes_in_this_experience)


def test_the_table_of_networks_is_complete_and_counts_right():
    row = r"^\| `([\w-]+)` \| .*\| ([\d,]+) \((?:([\d×]+), )?(\d+) classes\) \|$"
    found = {name: rest for name, *rest in re.findall(row, PAGE.read_text(), re.MULTILINE)}
    assert list(found) == list(MODELS)
    for name, (count, shape, classes) in found.items():
        sides = tuple(int(side) for side in shape.split("×")) if shape else (16,)
        network = MODELS[name](sides, int(classes))
        assert sum(p.numel() for p in network.parameters()) == int(count.replace(",", "")), name
