"""Class-incremental streams."""

import pytest
import torch
from torch.utils.data import TensorDataset

from rwalk.streams import TensorData, class_incremental, data_loader
from streams.toys import Lazy


def samples(classes, each=3, seed=0):
    """Inputs that are all different, so that a sample can be recognised."""
    targets = torch.tensor(list(classes) * each)
    x = torch.rand(len(targets), 2, 3, generator=torch.Generator().manual_seed(seed))
    return TensorData(x, targets)


def classes_of(benchmark):
    return [experience.classes_in_this_experience for experience in benchmark.train_stream]


def test_classes_arrive_in_ascending_order_and_no_sample_is_lost():
    train, test = samples(range(6)), samples(range(6), each=1, seed=1)
    benchmark = class_incremental("toy", train, test, 3)
    assert classes_of(benchmark) == [(0, 1), (2, 3), (4, 5)]
    for stream, whole in ((benchmark.train_stream, train), (benchmark.test_stream, test)):
        parts = [experience.dataset for experience in stream]
        kept = [row for part in parts for row in part.x.flatten(1).tolist()]
        assert sorted(kept) == sorted(whole.x.flatten(1).tolist())
        assert torch.equal(parts[1].x, whole.x[(whole.targets == 2) | (whole.targets == 3)])
    assert (benchmark.name, benchmark.n_classes, benchmark.input_shape) == ("toy", 6, (2, 3))


def test_the_test_stream_tests_what_the_training_stream_teaches():
    benchmark = class_incremental("toy", samples(range(6)), samples(range(6)), 3, seed=5)
    assert [e.classes_in_this_experience for e in benchmark.test_stream] == classes_of(benchmark)


def test_classes_are_dealt_out_as_evenly_as_they_divide():
    data = samples(range(7))
    assert [len(group) for group in classes_of(class_incremental("toy", data, data, 3))] == [3, 2, 2]
    assert classes_of(class_incremental("toy", data, data, 1)) == [tuple(range(7))]
    assert [len(group) for group in classes_of(class_incremental("toy", data, data, 7))] == [1] * 7


def test_a_class_order_is_followed():
    data = samples([2, 5, 7, 9])
    benchmark = class_incremental("toy", data, data, 2, class_order=[9, 2, 7, 5], seed=3)
    assert classes_of(benchmark) == [(2, 9), (5, 7)]
    assert set(benchmark.train_stream[0].dataset.targets.tolist()) == {2, 9}


@pytest.mark.parametrize("order", [[2, 5, 7], [2, 5, 7, 7], [2, 5, 7, 8], [2, 5, 7, 9, 9]])
def test_a_class_order_that_is_none_is_refused(order):
    data = samples([2, 5, 7, 9])
    with pytest.raises(ValueError, match=r"each of the classes \[2, 5, 7, 9\] once"):
        class_incremental("toy", data, data, 2, class_order=order)


def test_a_seed_draws_the_order_and_nothing_else():
    data = samples(range(10))
    orders = [classes_of(class_incremental("toy", data, data, 10, seed=seed)) for seed in (0, 1, 2)]
    state = torch.get_rng_state()
    assert classes_of(class_incremental("toy", data, data, 10, seed=1)) == orders[1]
    assert torch.equal(torch.get_rng_state(), state)
    assert len({tuple(order) for order in orders}) == 3
    for order in orders:
        assert sorted(order) == [(label,) for label in range(10)]


@pytest.mark.parametrize("count", [0, -1, 5])
def test_more_experiences_than_classes_or_none_are_refused(count):
    data = samples(range(4))
    with pytest.raises(ValueError, match=f"n_experiences={count}: toy has 4 classes"):
        class_incremental("toy", data, data, count)


def test_a_class_on_one_side_only_is_refused_by_its_number():
    for train, test in ((range(4), range(3)), (range(3), range(4))):
        with pytest.raises(ValueError, match="class 3 of toy is missing"):
            class_incremental("toy", samples(train), samples(test), 2)


def test_task_labels_make_each_experience_a_task():
    data = samples(range(4))
    for wanted, labels in ((False, [0, 0]), (True, [0, 1])):
        benchmark = class_incremental("toy", data, data, 2, task_labels=wanted)
        for stream in (benchmark.train_stream, benchmark.test_stream):
            assert [experience.task_label for experience in stream] == labels
            assert [set(e.dataset.task_labels.tolist()) for e in stream] == [{label} for label in labels]


def test_data_outside_memory_is_split_by_its_labels_without_being_read():
    lazy = Lazy([3, 1, 1, 0, 3])
    benchmark = class_incremental("toy", lazy, lazy, 3, task_labels=True)
    assert lazy.reads == 1  # for the shape of an input
    assert classes_of(benchmark) == [(0,), (1,), (3,)]
    assert [int(x[0]) for x, _ in benchmark.test_stream[2].dataset] == [0, 4]
    batch = next(iter(data_loader(benchmark.train_stream[2].dataset, 8, shuffle=False, task_label=2)))
    assert [part.tolist() for part in batch] == [[[0.0], [4.0]], [3, 3], [2, 2]]


def test_pairs_of_tensors_are_split_in_memory():
    pairs = TensorDataset(torch.arange(4.0).view(4, 1), torch.tensor([1, 0, 1, 0]))
    benchmark = class_incremental("toy", pairs, pairs, 2)
    assert isinstance(benchmark.train_stream[0].dataset, TensorData)
    assert benchmark.train_stream[1].dataset.x.flatten().tolist() == [0.0, 2.0]


def test_data_without_labels_is_refused():
    with pytest.raises(ValueError, match="list is not labelled"):
        class_incremental("toy", [torch.zeros(2)[0]], [torch.zeros(2)[0]], 1)
