"""Data from the hub's layout, and from local folders of tables and images."""

import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, DatasetDict, Image, Value
from PIL import Image as Picture

from rwalk import DataUnavailableError
from rwalk.streams import TensorLoader, load_data
from rwalk.streams.tables import hash_tokens
from streams.features import List
from streams.hub_layout import LAYOUTS, SHAPES, small_copy, write
from streams.picture_tables import pictures, table


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_dataset_of_the_catalog_is_what_its_files_hold(data_dir, name):
    train, test = small_copy(data_dir, name)
    data = load_data(name)
    for part, (inputs, labels) in ((data.train, train), (data.test, test)):
        assert part.targets.tolist() == labels
        found = part.batch(slice(None))[0]
        if name == "ag-news":
            expected = hash_tokens(inputs)
        else:
            expected = torch.from_numpy(np.stack(inputs)).float() / 255
            expected = expected.permute(0, 3, 1, 2) if name in SHAPES else expected.unsqueeze(1)
        assert torch.equal(found, expected)
        assert found.dtype is (torch.int64 if name == "ag-news" else torch.float32)
    assert data.name == name
    assert len(data.class_names) == data.n_classes


def test_colour_images_stay_bytes_in_memory_and_batches_are_numbers(data_dir):
    (images, _), _ = small_copy(data_dir, "cifar10")
    data = load_data("cifar10").train
    assert data.x.dtype is torch.uint8
    assert data.x.is_contiguous()
    x, *_ = next(iter(TensorLoader(data, 5, shuffle=False)))
    assert torch.equal(x, torch.from_numpy(np.stack(images[:5])).permute(0, 3, 1, 2).float() / 255)


def test_the_coarse_labels_of_cifar100_are_an_option_away(data_dir):
    (_, labels), _ = small_copy(data_dir, "cifar100")
    data = load_data("cifar100", label_column="coarse_label")
    assert data.train.targets.tolist() == [label // 5 for label in labels]
    assert data.n_classes == 20


def test_the_catalogs_repositories_are_asked_for_by_their_names(monkeypatch):
    asked = []

    def load_dataset(*source):
        asked.append(source)
        return DatasetDict({"train": pictures([0, 1]), "test": pictures([0, 1]), "valid": pictures([1, 0])})

    monkeypatch.delenv("RWALK_DATA_DIR", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for name in ("fashion-mnist", "kmnist", "emnist", "cifar10"):
        load_data(name)
    assert load_data("tiny-imagenet").test.targets.tolist() == [1, 0]  # its test split has no labels
    load_data("owner/name", config="small")
    assert asked == [
        ("zalando-datasets/fashion_mnist",),
        ("tanganke/kmnist",),
        ("tanganke/emnist_letters",),
        ("uoft-cs/cifar10",),
        ("zh-plus/tiny-imagenet",),
        ("owner/name", "small"),
    ]


def test_a_folder_of_images_by_class(data_dir, tmp_path):
    colours = {"red": (255, 0, 0), "green": (0, 255, 0)}
    for split, count in (("train", 3), ("test", 1)):
        for name, colour in colours.items():
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for index in range(count):
                Picture.new("RGB", (5, 4), colour).save(tmp_path / "pets" / split / name / f"{index}.png")
    data = load_data(tmp_path / "pets")
    assert (len(data.train), len(data.test), data.class_names) == (6, 2, ("green", "red"))
    assert data.input_shape == (3, 4, 5)
    x, y, _ = data.test.batch(slice(None))
    assert [x[position, :, 0, 0].tolist() for position in y.argsort().tolist()] == [[0, 1, 0], [1, 0, 0]]


def test_a_folder_of_tables_in_any_format_and_what_save_to_disk_wrote(data_dir, tmp_path):
    words = table({"text": ["good film", "bad film", "good"], "label": [1, 0, 1]})
    write(tmp_path / "parquet", {"train": words, "validation": words})
    (tmp_path / "csv").mkdir()
    for split in ("train", "test"):
        words.to_csv(tmp_path / "csv" / f"{split}.csv")
    DatasetDict({"train": words, "test": words}).save_to_disk(tmp_path / "saved")
    for kind in ("parquet", "csv", "saved"):
        data = load_data(str(tmp_path / kind), text_length=3, vocabulary=50)
        assert torch.equal(data.train.x, hash_tokens(words["text"][:], 3, 50))
        assert data.test.targets.tolist() == [1, 0, 1]


def test_a_hub_dataset_may_lie_under_the_data_folder_by_its_full_name(data_dir):
    write(data_dir / "owner" / "name", {"train": pictures([0, 1]), "test": pictures([1, 0])})
    assert load_data("owner/name").test.targets.tolist() == [1, 0]
    with pytest.raises(DataUnavailableError, match=r"no folder .*owner/other: RWALK_DATA_DIR=.* should hold owner/o"):
        load_data("owner/other")


def test_a_folder_that_is_no_dataset_is_named_with_what_is_expected(data_dir, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataUnavailableError) as error:
        load_data(tmp_path / "empty")
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'empty'} is no dataset that can be read (")
    assert "expected parquet, csv or json files named by split" in message
    assert len(message.splitlines()) == 1


def test_an_unreachable_dataset_is_said_in_one_line(monkeypatch):
    def unreachable(source):
        raise ConnectionError("cannot reach the hub\nafter five attempts")

    monkeypatch.delenv("RWALK_DATA_DIR", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataUnavailableError) as error:
        load_data("owner/name")
    assert str(error.value) == (
        "cannot load owner/name from the hub (cannot reach the hub); "
        "set RWALK_DATA_DIR to a folder that holds owner/name/ with its files"
    )


@pytest.mark.parametrize("source", ["nowhere", "./nowhere", "a/b/c", "/nowhere/at/all", ""])
def test_a_name_that_is_no_source_is_refused(source):
    with pytest.raises(ValueError, match=r"(unknown dataset|no folder) '?" + source):
        load_data(source)


def test_labels_of_any_numbers_are_numbered_from_zero_and_keep_their_names():
    split = pictures([2, 0, 2])
    data = load_data({"train": split, "test": split})
    assert (data.train.targets.tolist(), data.class_names) == ([1, 0, 1], ("cat", "hen"))
    numbers = table({"text": list("abc"), "label": [7, 3, 7]})
    data = load_data({"train": numbers, "test": numbers})
    assert (data.test.targets.tolist(), data.class_names) == ([1, 0, 1], ("3", "7"))
    words = table({"text": list("abc"), "genre": ["prose", "verse", "prose"]})
    data = load_data({"train": words, "test": words}, label_column="genre")
    assert (data.test.targets.tolist(), data.class_names) == ([0, 1, 0], ("prose", "verse"))


def test_a_split_is_found_named_or_held_out():
    def labels(**options):
        return load_data(tables, **options).test.targets.tolist()

    tables = {"train": pictures([0, 1] * 4), "validation": pictures([0, 1]), "extra": pictures([1, 1, 0])}
    assert labels() == [0, 1]
    assert labels(test_split="extra") == [1, 1, 0]
    assert load_data(tables, train_split="extra").train.targets.tolist() == [1, 1, 0]
    held = load_data(tables, test_fraction=0.25)
    assert (len(held.train), len(held.test)) == (6, 2)
    assert torch.equal(held.test.x, load_data(tables, test_fraction=0.25).test.x)
    rows = {tuple(x.flatten().tolist()) for x, *_ in held.train} & {tuple(x.flatten().tolist()) for x, *_ in held.test}
    assert not rows


def test_grey_and_colour_images_together_are_all_colour():
    grey, colour = pictures([0, 1, 2]), pictures([0, 1, 2], "RGB", seed=1)
    mixed = datasets.concatenate_datasets([grey, colour])
    x = load_data({"train": mixed, "test": mixed}).train.x
    assert x.shape == (6, 3, 3, 4)
    for position, row in enumerate(mixed):
        assert torch.equal(x[position], torch.from_numpy(np.array(row["image"].convert("RGB"))).permute(2, 0, 1))


def test_grey_and_colour_images_in_different_chunks_are_all_colour(monkeypatch):
    monkeypatch.setattr("rwalk.streams.tables.CHUNK", 2)
    test_grey_and_colour_images_together_are_all_colour()


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("LA", 1), ("P", 3), ("RGBA", 3), ("CMYK", 3)])
def test_images_of_other_modes_become_grey_or_colour(mode, channels):
    random = np.random.default_rng(0)
    colours = [Picture.fromarray(random.integers(0, 256, (3, 4, 3), dtype=np.uint8)) for _ in range(2)]
    images = [picture.convert(mode) for picture in colours]
    split = table({"image": images, "label": [0, 1]}, image=Image(), label=ClassLabel(num_classes=2))
    x, *_ = load_data({"train": split, "test": split}).train.batch(slice(None))
    assert x.shape == (2, channels, 3, 4)
    for found, row in zip(x, split, strict=True):
        expected = np.asarray(row["image"].convert("L" if channels == 1 else "RGB"))
        assert torch.equal(found.permute(1, 2, 0).squeeze(2), torch.from_numpy(expected.copy()).float() / 255)


def test_images_can_be_brought_to_one_size():
    mixed = datasets.concatenate_datasets([pictures([0, 1]), pictures([0, 1], size=(8, 6))])
    with pytest.raises(ValueError, match=r"images in column 'image' differ in size, such as \(3, 4\) and \(6, 8\)"):
        load_data({"train": mixed, "test": mixed})
    data = load_data({"train": mixed, "test": mixed}, image_size=(3, 4))
    assert data.input_shape == (1, 3, 4)
    assert torch.equal(data.train.x[:2], load_data({"train": pictures([0, 1]), "test": pictures([0, 1])}).train.x)


def test_arrays_come_as_they_are():
    rows = [[0.5, 1.0], [2.0, 3.0], [4.0, 5.0]]
    split = table({"x": rows, "y": [0, 1, 1]}, x=List(Value("float64"), length=2), y=Value("int64"))
    x = load_data({"train": split, "test": split}).train.x
    assert (x.dtype, x.tolist()) == (torch.float32, rows)
    ids = table({"ids": [[1, 2], [3, 4]], "y": [0, 1]}, ids=List(Value("int64")), y=Value("int64"))
    x = load_data({"train": ids, "test": ids}, input_column="ids").train.x
    assert (x.dtype, x.tolist()) == (torch.int64, [[1, 2], [3, 4]])
    ragged = table({"ids": [[1, 2], [3]], "y": [0, 1]})
    with pytest.raises(ValueError, match="split 'train' of the dataset: arrays in column 'ids' differ in shape"):
        load_data({"train": ragged, "test": ragged})


@pytest.mark.parametrize(
    ("tables", "options", "error", "message"),
    [
        (
            {"test": pictures([0])},
            {},
            DataUnavailableError,
            "cats has no split 'train' but 'test': choose one",
        ),
        (
            {"train": pictures([0])},
            {},
            DataUnavailableError,
            "cats has no split 'test' but 'train': choose one",
        ),
        (
            {"train": pictures([0]), "test": pictures([0])},
            {"test_split": "dev"},
            DataUnavailableError,
            "cats has no split 'dev' but 'train', 'test': choose one with test_split",
        ),
        (
            {"train": pictures([0]), "test": pictures([0]).select([])},
            {},
            DataUnavailableError,
            "split 'test' of cats has no samples",
        ),
        (
            {"train": pictures([0, 1]), "test": pictures([0, 0])},
            {},
            ValueError,
            "class 1 of cats is missing from the test data: each class needs samples in both (training has 2 classes",
        ),
        (
            {"train": pictures([0, 1]), "test": pictures([-1, -1])},
            {},
            ValueError,
            "split 'test' of cats is not labelled (class -1): choose another one with test_split, or hold out",
        ),
        (
            {"train": pictures([0, None]), "test": pictures([0])},
            {},
            ValueError,
            "split 'train' of cats is not labelled: 1 of 2 rows have no 'label'",
        ),
        (
            {"train": pictures([0]), "test": pictures([0]).remove_columns("label")},
            {},
            ValueError,
            "split 'test' of cats has no column 'label'",
        ),
        (
            {"train": pictures([0]).remove_columns("label"), "test": pictures([0])},
            {},
            ValueError,
            "cats has no column of class labels among 'image' (images): name one with label_column",
        ),
        (
            {"train": pictures([0]), "test": pictures([0], size=(2, 2))},
            {},
            ValueError,
            "inputs of cats have shape (1, 3, 4) in training and (1, 2, 2) in test data",
        ),
        (
            {"train": pictures([0]), "test": pictures([0])},
            {"test_split": "test", "test_fraction": 0.1},
            ValueError,
            "test_split='test' and test_fraction=0.1: give one of the two",
        ),
        ({"train": pictures([0, 0])}, {"test_fraction": 1.5}, ValueError, "fraction=1.5: expected a share between 0"),
        (
            {"train": table({"text": ["a", None], "label": [0, 1]}), "test": table({"text": ["a"], "label": [0]})},
            {},
            ValueError,
            "split 'train' of cats: text 1 is None: expected a string",
        ),
        (
            {"train": table({"text": ["a"], "score": [0.5]}), "test": table({"text": ["a"], "score": [0.5]})},
            {"label_column": "score"},
            ValueError,
            "labels are float64: expected class labels, whole numbers or names of classes",
        ),
    ],
)
def test_tables_that_are_no_labelled_data_are_refused_in_one_line(tables, options, error, message):
    with pytest.raises(error) as caught:
        load_data(tables, name="cats", **options)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_images_of_more_than_eight_bits_or_none_are_refused():
    deep = Picture.fromarray(np.full((2, 2), 60_000, dtype=np.uint16))
    for images, message in (([deep, deep], "images of mode 'I;16'"), ([None, None], "rows without an image")):
        split = table({"image": images, "label": [0, 1]}, image=Image(), label=ClassLabel(num_classes=2))
        with pytest.raises(ValueError, match=message):
            load_data({"train": split, "test": split})
