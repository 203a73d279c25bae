"""docs/scenarios.md: its code runs, and its table says what the catalog holds."""

import re
from pathlib import Path

import datasets
import torch
from datasets import Features, Value
from PIL import Image

from rwalk.streams import benchmark, benchmarks, load_data
from rwalk.streams.repositories import KNOWN
from streams.hub_layout import LAYOUTS, small_copy, write

PAGE = (Path(__file__).parents[2] / "docs" / "scenarios.md").read_text()


def test_the_pages_code_runs(data_dir, tmp_path, capsys):
    for name in ("mnist", "kmnist"):
        small_copy(data_dir, name, per_class=(20, 2))
    photos = [Image.new("RGB", (40 + index, 30), (index, 0, 0)) for index in range(4)]
    features = Features({"image": datasets.Image(), "kind": Value("int64"), "year": Value("int64")})
    columns = {"image": photos, "kind": [0, 1, 0, 1], "year": [1999, 2000, 2001, 2002]}
    pair = datasets.Dataset.from_dict(columns, features=features)
    write(data_dir / "owner" / "name", {"train": pair, "test": pair})
    for split in ("train", "test"):
        for number, kind in enumerate(("cat", "dog")):
            (tmp_path / "pets" / split / kind).mkdir(parents=True)
            Image.new("L", (3, 3), 90 * number).save(tmp_path / "pets" / split / kind / "0.png")
    names = {"folder": tmp_path / "pets"}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(block, "scenarios.md", "exec"), names)
    assert capsys.readouterr().out.splitlines()[0] == "0 (0, 1) 251"
    assert [len(e.classes_in_this_experience) for e in names["uneven"].train_stream] == [4, 2, 4]
    assert names["uneven"].train_stream[0].classes_in_this_experience == (6, 7, 8, 9)
    assert [e.task_label for e in names["drawn"].test_stream] == [0, 1, 2, 3, 4]
    assert len(names["permutations"].train_stream) == 17
    assert len(names["turned"].test_stream) == 4
    assert (names["scripts"].n_classes, names["alphabets"].n_classes, names["same"].n_classes) == (10, 20, 20)
    for one, other in zip(names["same"].test_stream, names["alphabets"].test_stream, strict=True):
        assert torch.equal(one.dataset.targets, other.dataset.targets)
        assert torch.equal(one.dataset.x, other.dataset.x)
    seen = [len(e.classes_in_this_experience) for e in names["mixed"].train_stream]
    assert all(2 <= count < 10 for count in seen)
    assert len(names["tenth"].train_stream) == 5
    assert names["rows"] == (4,)
    assert len(names["arriving"].train_stream) == -(-1257 // 32)
    for whole, held in zip(names["digits"].train_stream, names["held_out"].valid_stream, strict=True):
        tenth = [int(count / 10 + 0.5) for count in whole.dataset.targets.bincount().tolist()]
        assert held.dataset.targets.bincount().tolist() == tenth
    assert (len(names["arrays"].test), names["local"].class_names) == (52, ("cat", "dog"))
    assert names["hub"].input_shape == (3, 32, 32)


def rows():
    lines = [[cell.strip().strip("`") for cell in line.strip("|\n").split("|")] for line in PAGE.splitlines()]
    start = lines.index(["dataset", "repository", "inputs", "shape", "labels", "tests on", "classes", "experiences"])
    return {row[0]: row[1:] for row in lines[start + 2 :] if len(row) == 8}


def test_the_table_of_datasets_is_the_catalog(data_dir):
    assert list(rows()) == list(KNOWN)
    for name, (repository, inputs, shape, labels, tests_on, classes, experiences) in rows().items():
        known = KNOWN[name]
        if known.repository is not None:
            assert repository == known.repository
            _, test_split, columns = LAYOUTS[name]
            assert (inputs, labels, tests_on) == (*columns[:2], test_split)
            assert known.test_split == tests_on
            small_copy(data_dir, name)
        data = load_data(name)
        assert shape == str(data.input_shape)
        assert int(classes) == data.n_classes == known.n_classes
        assert int(experiences) == len(benchmark(f"split-{name}").train_stream) == known.n_experiences


def test_the_scenarios_of_the_page_are_those_of_the_catalog():
    described = set(re.findall(r"^\| `(\w+)` \| (?:all|the|most)", PAGE, re.MULTILINE))
    assert described == {name.partition("-")[0] for name in benchmarks()} | {"domains", "datasets"}
