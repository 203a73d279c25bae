"""Benchmarks by name, and what is said when their data is missing."""

import logging
import os
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from rwalk import DataUnavailableError, MissingExtraError
from rwalk.streams import benchmark, benchmarks

PER_CLASS = {"train": 4, "test": 2}


@pytest.fixture
def little_mnist(tmp_path, monkeypatch):
    """A folder laid out like MNIST's repository, and the images in it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setenv("RWALK_DATA_DIR", str(tmp_path))
    folder = tmp_path / "mnist"
    folder.mkdir()
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    random, images = np.random.default_rng(0), {}
    for split, each in PER_CLASS.items():
        images[split] = random.integers(0, 256, (10 * each, 28, 28), dtype=np.uint8)
        columns = {"image": list(images[split]), "label": [index % 10 for index in range(10 * each)]}
        table = datasets.Dataset.from_dict(columns, features=features)
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder, images


def the_one_line(error):
    """The error's message, which a person reads in a shell."""
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


def test_each_benchmark_has_a_line_about_it():
    assert list(benchmarks()) == ["split-digits", "split-mnist", "permuted-mnist"]
    assert all(len(line) > 10 for line in benchmarks().values())


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown benchmark 'mnist': choose one of split-digits, split-mnist, permut"):
        benchmark("mnist")


def test_split_digits_is_scikit_learns_data_cut_by_class():
    digits = benchmark("split-digits")
    assert [e.classes_in_this_experience for e in digits.train_stream] == [(k, k + 1) for k in range(0, 10, 2)]
    assert (digits.n_classes, digits.input_shape) == (10, (64,))
    images, labels = load_digits(return_X_y=True)
    rows = []
    for stream in (digits.train_stream, digits.test_stream):
        for experience in stream:
            data = experience.dataset
            rows += [(*x, y) for x, y in zip((16 * data.x).tolist(), data.targets.tolist(), strict=True)]
    assert sorted(rows) == sorted((*x, y) for x, y in zip(images.tolist(), labels.tolist(), strict=True))
    held_out = sum(len(experience.dataset) for experience in digits.test_stream)
    assert held_out == 540  # 30 % of 1797


def test_number_and_order_of_experiences_can_be_chosen():
    assert len(benchmark("split-digits", n_experiences=2).train_stream) == 2
    orders = [
        [e.classes_in_this_experience for e in benchmark("split-digits", seed=seed).train_stream] for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]
    with pytest.raises(ValueError, match="n_experiences=11"):
        benchmark("split-digits", n_experiences=11)


def test_split_mnist_reads_a_local_folder(little_mnist):
    _, images = little_mnist
    mnist = benchmark("split-mnist")
    assert [e.classes_in_this_experience for e in mnist.test_stream] == [(k, k + 1) for k in range(0, 10, 2)]
    assert mnist.input_shape == (1, 28, 28)
    for stream, split in ((mnist.train_stream, "train"), (mnist.test_stream, "test")):
        data = stream[2].dataset
        pairs = [index for index in range(10 * PER_CLASS[split]) if index % 10 in (4, 5)]
        assert data.targets.tolist() == [index % 10 for index in pairs]
        assert data.x.dtype is torch.float32
        assert torch.allclose(data.x[:, 0], torch.from_numpy(images[split][pairs] / 255.0).float())


def test_permuted_mnist_reads_the_same_folder(little_mnist):
    mnist = benchmark("permuted-mnist", n_experiences=3)
    assert [e.classes_in_this_experience for e in mnist.train_stream] == [tuple(range(10))] * 3
    first, second = (experience.dataset.batch(slice(None))[0].flatten(1) for experience in mnist.train_stream[:2])
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values)
    assert len(benchmark("permuted-mnist").train_stream) == 10
    drawn = benchmark("permuted-mnist", n_experiences=2, seed=7).train_stream[1].dataset.batch(slice(None))[0]
    assert not torch.equal(drawn.flatten(1), second)


def test_a_missing_folder_is_named_with_what_should_be_there(tmp_path, monkeypatch):
    monkeypatch.setenv("RWALK_DATA_DIR", str(tmp_path))
    with pytest.raises(DataUnavailableError) as error:
        benchmark("split-mnist")
    assert f"no folder {tmp_path / 'mnist'}: RWALK_DATA_DIR={tmp_path} should hold mnist/" in the_one_line(error)


@pytest.mark.parametrize("damage", ["no test split", "no files", "rubbish"])
def test_an_incomplete_folder_is_said_in_one_line(little_mnist, damage, caplog, capfd):
    folder, _ = little_mnist
    (folder / "test-00000-of-00001.parquet").unlink()
    if damage != "no test split":
        (folder / "train-00000-of-00001.parquet").unlink()
    if damage == "rubbish":
        (folder / "train-00000-of-00001.parquet").write_text("rubbish")
    capfd.readouterr()
    with pytest.raises(DataUnavailableError) as error:
        benchmark("split-mnist")
    assert ("split 'test'" if damage == "no test split" else "RWALK_DATA_DIR") in the_one_line(error)
    assert caplog.text == ""
    assert capfd.readouterr().err == ""


def test_an_unreachable_hub_is_said_in_one_line_with_the_way_out(monkeypatch):
    def unreachable(source):
        raise ConnectionError("cannot reach the hub\nafter five attempts")

    monkeypatch.delenv("RWALK_DATA_DIR", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    level = logging.getLogger("huggingface_hub").level
    with pytest.raises(DataUnavailableError) as error:
        benchmark("split-mnist")
    message = the_one_line(error)
    assert "cannot load ylecun/mnist from the hub (cannot reach the hub); set RWALK_DATA_DIR to a folder" in message
    assert logging.getLogger("huggingface_hub").level == level


@pytest.mark.parametrize(("module", "name"), [("sklearn.datasets", "split-digits"), ("datasets", "split-mnist")])
def test_a_missing_library_names_the_extra_that_brings_it(monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"needs .*; install it with: pip install 'rwalk\[data\]'") as error:
        benchmark(name)
    assert module.split(".", maxsplit=1)[0] in the_one_line(error)


@pytest.mark.skipif(
    not Path(os.environ.get("RWALK_DATA_DIR", "."), "mnist").is_dir() or "RWALK_DATA_DIR" not in os.environ,
    reason="RWALK_DATA_DIR names no folder that holds mnist/",
)
def test_the_real_mnist_is_complete(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    mnist = benchmark("split-mnist")
    for stream, count in ((mnist.train_stream, 60_000), (mnist.test_stream, 10_000)):
        assert sum(len(experience.dataset) for experience in stream) == count
    means = [float(experience.dataset.x.mean()) for experience in mnist.train_stream]
    sizes = [len(experience.dataset) for experience in mnist.train_stream]
    mean = sum(m * n for m, n in zip(means, sizes, strict=True)) / 60_000
    assert mean == pytest.approx(0.1307, abs=1e-4)
