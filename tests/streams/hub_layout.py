"""Small copies of datasets, laid out in files as their repositories on the hub are."""

import datasets
import numpy as np

#: Name in the catalog: folder of the files, name of the test split, and the columns.
LAYOUTS = {
    "mnist": ("mnist", "test", ("image", "label")),
    "fashion-mnist": ("fashion_mnist", "test", ("image", "label")),
    "kmnist": ("data", "test", ("image", "label")),
    "emnist": ("data", "test", ("image", "label")),
    "cifar10": ("plain_text", "test", ("img", "label")),
    "cifar100": ("cifar100", "test", ("img", "fine_label", "coarse_label")),
    "tiny-imagenet": ("data", "valid", ("image", "label")),
    "ag-news": ("data", "test", ("text", "label")),
}
SHAPES = {"cifar10": (32, 32, 3), "cifar100": (32, 32, 3), "tiny-imagenet": (64, 64, 3)}
CLASSES = {"emnist": 26, "cifar100": 100, "tiny-imagenet": 200, "ag-news": 4}
WORDS = ("the", "market", "fell", "again", "while", "its", "team", "won", "Monday's", "match", "42", "café")


def write(folder, tables):
    """Parquet files named by split, with their features."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, table in tables.items():
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")


def small_copy(root, name, per_class=(2, 1)):
    """Write a small copy of a catalog dataset under ``root/name``; the inputs and labels that are in it."""
    folder, test_split, columns = LAYOUTS[name]
    random, content, tables = np.random.default_rng(0), {}, {}
    classes = CLASSES.get(name, 10)
    for split, each in zip(("train", test_split), per_class, strict=True):
        labels = [index % classes for index in range(classes * each)]
        if name == "ag-news":
            inputs = [" ".join(random.choice(WORDS, 1 + index % 9)) for index in range(len(labels))]
            feature = datasets.Value("string")
        else:
            inputs = list(random.integers(0, 256, (len(labels), *SHAPES.get(name, (28, 28))), dtype=np.uint8))
            feature = datasets.Image()
        values = {columns[0]: inputs, columns[1]: labels}
        features = {columns[0]: feature, columns[1]: datasets.ClassLabel(num_classes=classes)}
        if name == "cifar100":
            values["coarse_label"] = [label // 5 for label in labels]
            features["coarse_label"] = datasets.ClassLabel(num_classes=20)
        tables[split] = datasets.Dataset.from_dict(values, features=datasets.Features(features))
        content[split] = (inputs, labels)
    write(root / name / folder, tables)
    return content["train"], content[test_split]
