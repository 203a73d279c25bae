"""Experiences and streams."""

import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from rwalk.streams import Benchmark, Stream, TensorData, taught_after


def data(*labels):
    return TensorData(torch.zeros(len(labels), 2), torch.tensor(labels))


class Empty(Dataset):
    def __len__(self):
        return 0

    def __getitem__(self, index):
        raise IndexError(index)


class Unlabelled(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return 0.0


def test_an_experience_knows_its_place_and_what_came_before():
    stream = Stream("train", [data(4, 1, 4), data(0, 1), data(3)])
    assert [e.current_experience for e in stream] == [0, 1, 2]
    assert [e.classes_in_this_experience for e in stream] == [(1, 4), (0, 1), (3,)]
    assert [e.previous_classes for e in stream] == [(), (1, 4), (0, 1, 4)]
    assert [e.classes_seen_so_far for e in stream] == [(1, 4), (0, 1, 4), (0, 1, 3, 4)]
    assert all(e.origin_stream is stream for e in stream)


def test_tasks_are_not_told_apart_unless_labelled():
    parts = [data(0), data(1)]
    assert [(e.task_label, e.task_labels) for e in Stream("train", parts)] == [(0, [0]), (0, [0])]
    assert [(e.task_label, e.task_labels) for e in Stream("train", parts, [3, 5])] == [(3, [3]), (5, [5])]


def test_a_stream_is_a_sequence():
    stream = Stream("test", [data(0), data(1), data(2)])
    assert len(stream) == 3
    assert stream[-1] is list(stream)[2]
    assert stream[:2] == [stream[0], stream[1]]
    assert repr(stream) == "Stream('test', 3 experiences)"
    with pytest.raises(IndexError):
        stream[3]


def test_a_stream_needs_experiences_and_as_many_task_labels():
    with pytest.raises(ValueError, match="the train stream has no experiences"):
        Stream("train", [])
    with pytest.raises(ValueError, match="2 experiences and 1 task labels"):
        Stream("train", [data(0), data(1)], [0])


def test_a_test_experience_is_taught_by_the_training_experience_of_its_place_or_when_its_milestone_says():
    parts = [data(0), data(1), data(2)]
    for plain in (Stream("test", parts), parts):
        assert [taught_after(plain, trained) for trained in range(5)] == [(-1,), (0,), (1,), (2,), ()]
    stream = Stream("test", parts, milestones=[2, 4, 4])
    assert [taught_after(stream, trained) for trained in range(6)] == [(-1,), (), (0,), (), (1, 2), ()]


@pytest.mark.parametrize("milestones", [[1, 2], [0, 1, 2], [2, 1, 3]])
def test_milestones_must_ascend_and_be_as_many_as_experiences(milestones):
    with pytest.raises(ValueError, match="of the test stream: expected 3 numbers, ascending from 1"):
        Stream("test", [data(0), data(1), data(2)], milestones=milestones)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Empty(), "experience 1 of the valid stream has no samples"),
        (TensorDataset(torch.zeros(2, 2), torch.tensor([0, -3])), "labels go down to -3"),
    ],
)
def test_an_empty_or_mislabelled_experience_is_refused_when_the_stream_is_made(bad, message):
    with pytest.raises(ValueError, match=message):
        Stream("valid", [data(0), bad])


def test_a_benchmark_holds_a_training_and_a_test_stream():
    train, test = Stream("train", [data(0)]), Stream("test", [data(0)])
    benchmark = Benchmark("mine", train, test, 1, (2,))
    assert (benchmark.train_stream, benchmark.test_stream) == (train, test)
