"""The datasets that have a name of their own here."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rwalk.errors import MissingExtraError
from rwalk.streams.data import TensorData
from rwalk.streams.splits import Data

__all__ = ["KNOWN", "Known", "load_digits"]


@dataclass(frozen=True)
class Known:
    """A dataset of the catalog.

    Attributes:
        title: What people call it.
        n_classes: Number of classes.
        n_experiences: Into how many experiences its classes are usually split.
        kind: ``images``, ``vectors`` or ``text``.
        repository: Its name on the Hugging Face hub; None for data that comes with a package.
        label_column: The column of labels, where the repository has several.
        test_split: The split that is tested on.
    """

    title: str
    n_classes: int
    n_experiences: int
    kind: str = "images"
    repository: str | None = None
    label_column: str | None = None
    test_split: str = "test"


#: By name; under ``RWALK_DATA_DIR`` each lies in a folder of that name.
KNOWN = {
    "digits": Known("scikit-learn's bundled 8×8 digits", 10, 5, kind="vectors"),
    "mnist": Known("MNIST", 10, 5, repository="ylecun/mnist"),
    "fashion-mnist": Known("Fashion-MNIST", 10, 5, repository="zalando-datasets/fashion_mnist"),
    "kmnist": Known("Kuzushiji-MNIST", 10, 5, repository="tanganke/kmnist"),
    "emnist": Known("EMNIST letters", 26, 13, repository="tanganke/emnist_letters"),
    "cifar10": Known("CIFAR-10", 10, 5, repository="uoft-cs/cifar10"),
    "cifar100": Known("CIFAR-100", 100, 10, repository="uoft-cs/cifar100", label_column="fine_label"),
    "tiny-imagenet": Known("Tiny ImageNet", 200, 10, repository="zh-plus/tiny-imagenet", test_split="valid"),
    "ag-news": Known("AG News", 4, 2, kind="text", repository="fancyzhx/ag_news"),
}


def load_digits() -> Data:
    """scikit-learn's digits as vectors of 64 numbers from 0 to 1; 30 % of each class are test data.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as bundled
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingExtraError("digits", "data", error) from error
    images, labels = bundled(return_X_y=True)
    parts = train_test_split(images / 16.0, labels, test_size=0.3, random_state=0, stratify=labels)
    x_train, x_test, y_train, y_test = (torch.from_numpy(part) for part in parts)
    return Data("digits", TensorData(x_train.float(), y_train), TensorData(x_test.float(), y_test))
