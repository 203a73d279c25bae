"""Data without class labels: regression, several labels, soft labels, sequences, rows of a table."""

import copy
import pickle

import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from rwalk.streams import (
    Benchmark,
    NoClassLabelsError,
    Stream,
    TensorData,
    TensorLoader,
    class_incremental,
    data_loader,
    labels_of,
    with_validation,
)

TARGETS = {
    "regression": torch.rand(6),
    "regression of several numbers": torch.rand(6, 2),
    "several labels": torch.eye(6, 4),
    "soft labels": torch.rand(6, 3).softmax(dim=1),
    "a label for each element": torch.arange(12).view(6, 2),
}
every = pytest.mark.parametrize("y", TARGETS.values(), ids=TARGETS)


class Rows(Dataset):
    """Rows that are mappings, with no attribute that says what they hold."""

    def __init__(self, *rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


@every
def test_other_targets_than_classes_are_batched_in_memory(y):
    data = TensorData(torch.arange(6.0).view(6, 1), y, task_label=3)
    pairs = TensorDataset(data.x, y)
    for dataset in (data, pairs, ConcatDataset([Subset(pairs, [0, 1]), Subset(pairs, [2, 3, 4, 5])])):
        loader = data_loader(dataset, 4, shuffle=False, task_label=3)
        assert isinstance(loader, TensorLoader)
        x, targets, tasks = (torch.cat(parts) for parts in zip(*loader, strict=True))
        assert torch.equal(x, data.x)
        assert torch.equal(targets, y)
        assert targets.dtype == y.dtype
        assert tasks.tolist() == [3] * 6
    x, targets, _ = next(iter(data_loader(data, 6, shuffle=True)))
    assert torch.equal(targets, y[x.flatten().long()])
    assert torch.equal(data.subset(torch.tensor([4, 1])).targets, y[[4, 1]])


@every
def test_their_experiences_have_no_classes_and_say_so_when_asked(y):
    stream = Stream(
        "train", [TensorData(torch.zeros(3, 1), torch.tensor([0, 1, 1])), TensorDataset(torch.zeros(6, 1), y)]
    )
    assert stream[1].classes is None
    assert not hasattr(stream[1], "classes_in_this_experience")
    for name in ("classes_in_this_experience", "classes_seen_so_far"):
        with pytest.raises(AttributeError, match="experience 1 of the train stream has no class labels"):
            getattr(stream[1], name)
    assert stream[1].previous_classes == (0, 1)
    with pytest.raises(NoClassLabelsError, match="whole numbers"):
        labels_of(stream[1].dataset)


@every
def test_scenarios_of_classes_refuse_them(y):
    data = TensorData(torch.zeros(6, 1), y)
    with pytest.raises(ValueError, match="expected \\(N,\\) whole numbers"):
        class_incremental("toy", data, data, 2)


@every
def test_validation_data_is_held_out_of_all_samples_together(y):
    data = TensorData(torch.arange(6.0).view(6, 1), y)
    streams = (Stream(name, [data, TensorDataset(data.x + 10, y)]) for name in ("train", "test"))
    found = with_validation(Benchmark("toy", *streams, 0, (1,)), 1 / 3)
    for kept, held, start in zip(found.train_stream, found.valid_stream, (0, 10), strict=True):
        numbers = [sorted(int(sample[0]) for sample in e.dataset) for e in (kept, held)]
        assert [len(part) for part in numbers] == [4, 2]
        assert sorted([*numbers[0], *numbers[1]]) == list(range(start, start + 6))


def test_labels_of_rows_are_found_by_name():
    assert labels_of(Rows({"text": "a", "label": 3}, {"text": "b", "label": torch.tensor(1)})).tolist() == [3, 1]
    assert labels_of(Rows({"label": 0.5, "labels": 3})).tolist() == [3]
    with pytest.raises(NoClassLabelsError, match=r"Rows is not labelled: no 'labels' or 'label' among .* text"):
        labels_of(Rows({"text": "a"}))
    with pytest.raises(NoClassLabelsError, match="whole numbers"):
        labels_of(Rows({"labels": [1, 0, 1]}))
    with pytest.raises(NoClassLabelsError, match="Rows is not labelled"):
        labels_of(Rows("text"))


def test_labels_of_a_hugging_face_dataset_are_read_as_a_column(monkeypatch):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [2, 0, 1]})
    assert labels_of(table.with_format("torch")).tolist() == [2, 0, 1]
    real = datasets.Dataset.__getitem__

    def columns_only(self, key):
        assert not isinstance(key, int), "read row by row"
        return real(self, key)

    monkeypatch.setattr(datasets.Dataset, "__getitem__", columns_only)
    assert labels_of(table).tolist() == [2, 0, 1]
    assert Stream("train", [table, Subset(table, [1, 2])])[1].classes_in_this_experience == (0, 1)
    assert Stream("train", [datasets.Dataset.from_dict({"x": [0.5]})])[0].classes is None


def test_labels_below_zero_are_a_mistake_and_no_regression():
    with pytest.raises(ValueError, match="labels go down to -1"):
        Stream("train", [Rows({"label": 0}, {"label": -1})])


def test_two_streams_of_one_name_do_not_make_a_benchmark():
    first, second, valid = (
        Stream(name, [TensorData(torch.zeros(1, 1), torch.tensor([0]))]) for name in ("a", "a", "b")
    )
    with pytest.raises(ValueError, match="mine has streams named 'a', 'a': metrics need different names"):
        Benchmark("mine", first, second, 1, (1,))
    with pytest.raises(ValueError, match="streams named 'a', 'b', 'a'"):
        Benchmark("mine", first, valid, 1, (1,), second)
    assert Benchmark("mine", first, first, 1, (1,)).test_stream is first  # one stream, of one name


def test_streams_are_copied_and_pickled_with_their_experiences():
    stream = Stream(
        "train", [TensorData(torch.zeros(2, 1), torch.tensor([0, 1])), TensorData(torch.zeros(2, 1), torch.rand(2))]
    )
    for other in (copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))):
        assert [e.classes for e in other] == [(0, 1), None]
        assert all(e.origin_stream is other for e in other)
