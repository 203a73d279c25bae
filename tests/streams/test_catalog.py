"""Benchmarks by name, and what is said when their data is missing."""

import logging
import os
import pickle
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader

from rwalk import DataUnavailableError, MissingExtraError
from rwalk.streams import benchmark, benchmarks, check_benchmark
from rwalk.streams.in_memory import as_tensor_data
from rwalk.streams.rotated import rotate
from streams.hub_layout import LAYOUTS, small_copy
from streams.toys import numbered


def the_one_line(error):
    """The error's message, which a person reads in a shell."""
    message = str(error.value)
    assert len(message.splitlines()) == 1
    return message


def test_the_catalog_names_each_dataset_in_each_scenario_that_fits_it():
    known = benchmarks()
    assert {name.partition("-")[2] for name in known} == {"digits", *LAYOUTS}
    scenarios = {data: [name.partition("-")[0] for name in known if name.endswith(f"-{data}")] for data in LAYOUTS}
    assert scenarios.pop("ag-news") == ["split", "blurry", "online"]
    assert scenarios["cifar100"] == ["split", "permuted", "rotated", "blurry", "online"]
    assert "rotated-digits" not in known
    assert known["split-mnist"] == "MNIST, 10 classes in 5 experiences"
    assert known["online-tiny-imagenet"] == (
        "Tiny ImageNet, 10 groups of classes in 100 small experiences without tasks"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "mnist",
            "unknown benchmark 'mnist': did you mean split-mnist, permuted-mnist, rotated-mnist, blurry-mnist",
        ),
        ("split-mnits", "unknown benchmark 'split-mnits': did you mean split-mnist,"),
        ("zzz", "unknown benchmark 'zzz': choose one of split-digits, permuted-digits,"),
        ("cut:mnist", "unknown scenario 'cut' in 'cut:mnist': choose one of split, permuted, rotated,"),
        ("split:", "'split:' names no data: expected split:SOURCE, such as split:mnist"),
        ("domains:mnist,", "'domains:mnist,' names no data"),
        ("split:mnits", "unknown dataset 'mnits': did you mean mnist"),
        ("split:zzz", "unknown dataset 'zzz': expected one of digits, mnist,"),
        ("split:./nowhere", "no folder ./nowhere: expected a dataset there"),
        ("permuted:ag-news", "'permuted:ag-news': ag-news holds text, permuted is for images"),
        ("rotated:digits", "'rotated:digits': digits holds vectors, rotated is for images"),
        ("split:mnist?colour=1", "unknown option 'colour' of mnist: choose from config, input_column,"),
        ("split:mnist?image_size=32", "image_size='32' of mnist: expected HEIGHTxWIDTH, such as 32x32"),
        ("split:mnist?test_fraction=some", "test_fraction='some' of mnist: could not convert"),
    ],
)
def test_a_name_that_no_benchmark_has_is_refused_before_anything_is_loaded(name, message):
    for refuse in (check_benchmark, benchmark):
        with pytest.raises(ValueError) as error:
            refuse(name)
        assert message in the_one_line(error)


@pytest.mark.parametrize("given", [None, 3, numbered({0: 1})])
def test_what_is_no_name_is_told_what_is(given):
    for refuse in (check_benchmark, benchmark):
        with pytest.raises(
            TypeError,
            match=f"name is a {type(given).__name__}: expected the name of a benchmark, such as 'split-digits'",
        ):
            refuse(given)


@pytest.mark.parametrize("name", ["split-mnist", "online:owner/name", "domains:mnist,kmnist", "split:owner/a?config=b"])
def test_a_name_that_could_be_one_passes_without_loading(name):
    check_benchmark(name)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("permuted-digits", {"sizes": [4, 6]}, r"sizes=[4, 6] does not apply to permuted-digits (the data under 10"),
        ("permuted-digits", {"class_order": range(10)}, "class_order=range(0, 10) does not apply to permuted-digits"),
        ("blurry-digits", {"task_labels": True}, "task_labels=True does not apply to blurry-digits"),
        ("online-digits", {"task_labels": True}, "task_labels=True does not apply to online-digits"),
        ("domains:digits,digits", {"n_experiences": 2}, "n_experiences=2 does not apply to domains:digits,digits"),
        ("split-digits", {"sizes": [4, 4]}, "sizes=[4, 4] add up to 8: split-digits has 10 classes"),
        ("split-digits", {"n_experiences": 11}, "n_experiences=11: split-digits has 10 classes"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(name, options, message):
    with pytest.raises(ValueError) as error:
        benchmark(name, **options)
    assert message in the_one_line(error)


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


def test_uneven_groups_order_and_task_labels_can_be_chosen():
    order = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    digits = benchmark("split-digits", sizes=[4, 2, 4], class_order=order, task_labels=True)
    for stream in (digits.train_stream, digits.test_stream):
        assert [e.classes_in_this_experience for e in stream] == [(6, 7, 8, 9), (4, 5), (0, 1, 2, 3)]
        assert [e.task_label for e in stream] == [0, 1, 2]


@pytest.mark.parametrize("scenario", ["split", "permuted", "blurry", "online"])
def test_each_scenario_of_the_digits_is_determined_by_its_seed(scenario):
    def content(seed):
        made = benchmark(f"{scenario}-digits", seed=seed)
        return [as_tensor_data(experience.dataset).batch(slice(None))[0] for experience in made.train_stream]

    first, again, other = content(1), content(1), content(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, other, strict=False))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_small_copy_in_the_hubs_layout_is_split_into_the_usual_experiences(data_dir, name):
    (_, train_labels), (_, test_labels) = small_copy(data_dir, name)
    made = benchmark(f"split-{name}")
    classes = len(set(train_labels))
    assert f"{classes} classes in {len(made.train_stream)} experiences" in benchmarks()[f"split-{name}"]
    assert made.n_classes == classes
    per_experience = classes // len(made.train_stream)
    for stream, labels in ((made.train_stream, train_labels), (made.test_stream, test_labels)):
        for index, experience in enumerate(stream):
            first = index * per_experience
            assert experience.classes_in_this_experience == tuple(range(first, first + per_experience))
            wanted = [label for label in labels if first <= label < first + per_experience]
            assert experience.dataset.targets.tolist() == wanted


def test_the_other_scenarios_read_the_same_copy(data_dir):
    (images, _), _ = small_copy(data_dir, "cifar10", per_class=(20, 2))
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    turned = benchmark("rotated-cifar10", n_experiences=3, task_labels=True)
    assert [e.task_label for e in turned.train_stream] == [0, 1, 2]
    for index, experience in enumerate(turned.train_stream):
        assert torch.equal(experience.dataset.batch(slice(None))[0], rotate(pixels, 60.0 * index))
    mixed = benchmark("blurry-cifar10")
    counts = [experience.dataset.targets.bincount(minlength=10) for experience in mixed.train_stream]
    assert [count[2 * index].item() for index, count in enumerate(counts)] == [18] * 5
    assert [e.classes_in_this_experience for e in mixed.test_stream] == [(k, k + 1) for k in range(0, 10, 2)]
    small = benchmark("online-cifar10", n_experiences=8)
    assert [len(e.dataset) for e in small.train_stream] == [25] * 8
    assert small.train_stream[0].classes_in_this_experience == (0, 1)
    assert len(benchmark("online-cifar10").train_stream) == 100


@pytest.mark.parametrize("name", ["permuted-cifar10", "rotated-cifar10", "online-cifar10", "domains:cifar10,cifar10"])
def test_streams_can_be_sent_to_other_processes(data_dir, name):
    small_copy(data_dir, "cifar10")
    stream = benchmark(name).train_stream
    sent = pickle.loads(pickle.dumps(stream))
    for one, other in zip(stream, sent, strict=True):
        x, *_ = next(iter(DataLoader(one.dataset, batch_size=2)))
        assert torch.equal(next(iter(DataLoader(other.dataset, batch_size=2)))[0], x)


def test_several_sources_follow_one_another(data_dir):
    for name in ("mnist", "kmnist"):
        small_copy(data_dir, name)
    domains = benchmark("domains:mnist,kmnist", task_labels=True)
    assert [(e.task_label, len(e.classes_in_this_experience)) for e in domains.test_stream] == [(0, 10), (1, 10)]
    assert domains.n_classes == 10
    both = benchmark("datasets:mnist,kmnist")
    assert [e.classes_in_this_experience for e in both.test_stream] == [tuple(range(10)), tuple(range(10, 20))]
    assert both.n_classes == 20


def test_any_source_takes_a_scenario_and_options(data_dir):
    (_, labels), _ = small_copy(data_dir, "cifar100", per_class=(1, 1))
    coarse = benchmark("split:cifar100?label_column=coarse_label&image_size=8x4", n_experiences=4)
    assert (coarse.n_classes, coarse.input_shape, len(coarse.train_stream)) == (20, (3, 8, 4), 4)
    (data_dir / "cifar100").rename(data_dir.parent / "mine")
    local = f"split:{data_dir.parent}/mine?label_column=fine_label"
    assert len(benchmark(local).train_stream) == 5  # 10 for the catalog's, 5 for data that it does not know
    (data_dir / "owner").mkdir()
    (data_dir.parent / "mine").rename(data_dir / "owner" / "name")
    named = benchmark("permuted:owner/name?label_column=fine_label", n_experiences=2)
    assert len(named.train_stream) == 2
    assert named.train_stream[1].dataset.targets.tolist() == labels


def test_permuted_mnist_shows_the_same_images_in_other_orders(data_dir):
    small_copy(data_dir, "mnist")
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
def test_an_incomplete_folder_is_said_in_one_line(data_dir, damage, caplog, capfd):
    small_copy(data_dir, "mnist")
    train, test = (data_dir / "mnist" / "mnist" / f"{split}-00000-of-00001.parquet" for split in ("train", "test"))
    test.unlink()
    if damage != "no test split":
        train.unlink()
    if damage == "rubbish":
        train.write_text("rubbish")
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
