"""Data that a user has in memory: torch datasets, arrays, tensors, lists."""

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Subset, TensorDataset

from rwalk.streams import TensorData, load_data
from streams.picture_tables import pictures


class Lazy(TorchDataset):
    """Samples made when they are asked for."""

    def __init__(self, make, count=4):
        self.make, self.count = make, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError(index)
        return self.make(index)


@pytest.mark.parametrize(
    "dataset",
    [
        Lazy(lambda i: (torch.full((2,), float(i)), 5 + i % 2)),
        Lazy(lambda i: (np.full(2, i, dtype=np.float32), torch.tensor(5 + i % 2), 3)),
        TensorDataset(torch.arange(4.0).view(4, 1).expand(4, 2), torch.tensor([5, 6, 5, 6])),
        Subset(TensorDataset(torch.arange(5.0).view(5, 1).expand(5, 2), torch.tensor([5, 6, 5, 6, 9])), range(4)),
        TensorData(torch.arange(4.0).view(4, 1).expand(4, 2), torch.tensor([5, 6, 5, 6])),
    ],
    ids=["lazy", "arrays", "tensors", "subset", "ours"],
)
def test_torch_datasets_are_read_into_memory(dataset):
    data = load_data(dataset, test=dataset, name="mine")
    for part in (data.train, data.test):
        x, y, _ = part.batch(slice(None))
        assert x.tolist() == [[float(i)] * 2 for i in range(4)]
        assert y.tolist() == [0, 1, 0, 1]
    assert (data.name, data.class_names, data.input_shape) == ("mine", ("5", "6"), (2,))


def test_pairs_of_arrays_tensors_and_lists():
    x, y = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1], dtype=np.int32)
    for pair in ((x, y), [torch.from_numpy(x), torch.from_numpy(y)], (x.tolist(), y.tolist())):
        data = load_data(pair, test_fraction=0.5)
        assert (len(data.train), len(data.test), data.train.x.dtype) == (2, 2, torch.float32)
        rows = [*data.train.x.tolist(), *data.test.x.tolist()]
        assert sorted(rows) == x.tolist()
    grey = load_data((np.full((2, 1, 2, 2), 255, np.uint8), y[:2]), test=(np.zeros((2, 1, 2, 2), np.uint8), y[:2]))
    assert grey.train[0][0].tolist() == [[[1.0, 1.0], [1.0, 1.0]]]
    pixels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 2, 2)
    colour = load_data((pixels, y[:2]), test=(pixels, y[:2])).train
    assert colour.x.dtype is torch.uint8
    assert torch.equal(colour.batch(slice(None))[0], torch.from_numpy(pixels).float() / 255)


def test_a_view_of_data_in_memory_stays_one():
    data = TensorData(torch.ones(2, 3), torch.tensor([4, 2]), torch.tensor([7, 8]), transform=torch.neg)
    found = load_data(data, test=data).train
    assert found.x.data_ptr() == data.x.data_ptr()
    assert found.batch(slice(None))[0].tolist() == [[-1.0] * 3] * 2
    assert (found.targets.tolist(), found.task_labels.tolist()) == ([1, 0], [7, 8])


def test_what_a_torch_dataset_does_to_its_samples_and_their_task_labels_stay():
    data = TensorData(torch.ones(3, 2, dtype=torch.float64), torch.tensor([0, 1, 1]), torch.tensor([7, 8, 9]))
    found = load_data(Subset(data, [1, 2]), test=Subset(data, [1, 2])).train
    assert (found.x.dtype, found.task_labels.tolist()) == (torch.float32, [8, 9])
    negated = TensorData(data.x, data.targets, transform=torch.neg)
    found = load_data(Subset(negated, [0, 1]), test=Subset(negated, [0, 1])).train
    assert found.batch(slice(None))[0].tolist() == [[-1.0, -1.0]] * 2


PAIR = (np.zeros((2, 3)), [0, 1])


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        (PAIR, {}, ValueError, "cats: give test data with test=, or a share to hold out with test_fraction="),
        (PAIR, {"test": PAIR, "test_fraction": 0.1}, ValueError, "cats: give test data with test=, or a share"),
        (3, {"test": PAIR}, TypeError, "the training data of cats is of type int: expected a torch Dataset or a pair"),
        (PAIR, {"test": [1, 2, 3]}, TypeError, "the test data of cats is of type list"),
        (
            (np.zeros((2, 3)), [0, 1, 2]),
            {"test": PAIR},
            ValueError,
            "the training data of cats: expected one label for each of 2 inputs, found labels of shape (3,)",
        ),
        (
            (np.zeros((2, 3)), [0.5, 1.0]),
            {"test": PAIR},
            ValueError,
            "the training data of cats: labels have dtype",
        ),
        (
            (np.zeros((2, 3)), ["a", "b"]),
            {"test": PAIR},
            ValueError,
            "labels of the training data of cats are no array",
        ),
        (
            ([[1], [1, 2]], [0, 1]),
            {"test": PAIR},
            ValueError,
            "inputs of the training data of cats are no array of num",
        ),
        ((np.zeros((2, 3)), [0, -1]), {"test": PAIR}, ValueError, "the training data of cats: labels go down to -1"),
        (PAIR, {"test": (np.zeros((2, 4)), [0, 1])}, ValueError, "inputs of cats have shape (3,) in training and (4,)"),
        (PAIR, {"test": (np.zeros((2, 3)), [0, 0])}, ValueError, "class 1 of cats is missing from the test data"),
        (
            Lazy(lambda i: torch.zeros(2)),
            {"test": PAIR},
            ValueError,
            "the training data of cats cannot be read into memory (sample 0 is a Tensor, not labelled): expected",
        ),
        (
            Lazy(lambda i: (torch.zeros(1 + i), 0)),
            {"test": PAIR},
            ValueError,
            "the training data of cats cannot be read into memory (stack expects each tensor to be equal size",
        ),
        (
            Lazy(lambda i: (Picture.new("L", (2, 2)), 0)),
            {"test": PAIR},
            ValueError,
            "the training data of cats cannot be read into memory (",
        ),
        ("digits", {"test": PAIR}, ValueError, "test=tuple: cats brings test data of its own (see test_split)"),
        (
            {"train": pictures([0]), "test": pictures([0])},
            {"test": PAIR},
            ValueError,
            "test=tuple: cats brings test data of its own (see test_split)",
        ),
        ("digits", {"config": "a"}, ValueError, "config='a' does not apply to cats, which is no table in files"),
        ("digits", {"test_fraction": 0.5}, ValueError, "test_fraction=0.5 does not apply to cats, which is no table"),
        (PAIR, {"test": PAIR, "label_column": "y"}, ValueError, "label_column='y' does not apply to cats, which is no"),
    ],
)
def test_what_is_no_labelled_data_in_memory_is_refused_in_one_line(source, options, error, message):
    with pytest.raises(error) as caught:
        load_data(source, name="cats", **options)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
