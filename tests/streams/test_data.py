"""TensorData and the labels of any dataset."""

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from rwalk.streams import TensorData, labels_of


class Unlabelled(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return torch.zeros(3)[0]


class Labelled(Dataset):
    """Samples whose labels are whatever was given."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return torch.zeros(3), self.labels[index]


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        ([[1.0]], torch.tensor([0]), TypeError, "expected tensors x and y, found list and Tensor"),
        (torch.zeros(1, 2), [0], TypeError, "found Tensor and list"),
        (torch.zeros(3, 2), torch.tensor([0, 1]), ValueError, "each of 3 inputs, found labels of shape (2,)"),
        (torch.zeros(2, 2), torch.tensor(1), ValueError, "labels of shape ()"),
        (torch.zeros(0, 2), torch.zeros(0).long(), ValueError, "no samples"),
        (torch.zeros(1, 2), torch.tensor([1j]), ValueError, "torch.complex64"),
        (torch.zeros(1, 2), torch.tensor([True]), ValueError, "torch.bool"),
        (torch.zeros(2, 2), torch.tensor([3, -2]), ValueError, "labels go down to -2"),
    ],
)
def test_what_is_no_labelled_data_is_refused_by_name(x, y, error, message):
    with pytest.raises(error) as caught:
        TensorData(x, y)
    assert message in str(caught.value)


def test_task_labels_must_be_one_for_all_or_one_a_sample():
    x, y = torch.zeros(3, 2), torch.tensor([0, 1, 2])
    assert TensorData(x, y, 7).task_labels.tolist() == [7, 7, 7]
    assert TensorData(x, y, torch.tensor([1, 2, 3])).task_labels.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"each of 3 samples, found shape \(2,\)"):
        TensorData(x, y, torch.tensor([1, 2]))


def test_labels_of_a_smaller_integer_type_become_int64():
    data = TensorData(torch.zeros(2, 1), torch.tensor([1, 0], dtype=torch.uint8))
    assert data.targets.dtype is torch.int64
    assert data.targets.tolist() == [1, 0]


def test_one_sample_at_a_time_from_either_end():
    data = TensorData(torch.arange(6.0).view(3, 2), torch.tensor([5, 6, 7]), torch.tensor([0, 1, 2]))
    x, y, task = data[1]
    assert (x.tolist(), y.item(), task.item()) == ([2.0, 3.0], 6, 1)
    assert data[-1][1].item() == 7
    with pytest.raises(IndexError):
        data[3]
    assert len(list(iter(data))) == len(data) == 3


def test_subset_takes_positions_or_a_mask_with_labels_and_transform():
    data = TensorData(torch.arange(4.0).view(4, 1), torch.tensor([0, 1, 0, 1]), torch.arange(4), transform=torch.neg)
    for part in (data.subset(torch.tensor([1, 3])), data.subset(data.targets == 1)):
        x, y, task = part.batch(slice(None))
        assert (x.flatten().tolist(), y.tolist(), task.tolist()) == ([-1.0, -3.0], [1, 1], [1, 3])
    with pytest.raises(ValueError, match="no samples"):
        data.subset(data.targets == 9)


def test_a_transform_sees_a_batch_at_a_time_and_leaves_the_data_alone():
    seen = []

    def double(x):
        seen.append(len(x))
        return 2 * x

    x = torch.ones(5, 2)
    data = TensorData(x, torch.zeros(5, dtype=torch.int64), transform=double)
    assert data.batch(slice(0, 3))[0].tolist() == [[2.0, 2.0]] * 3
    assert seen == [3]
    assert torch.equal(x, torch.ones(5, 2))
    assert data.x is x


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: x,
        lambda x: x.to(memory_format=torch.channels_last),
        lambda x: x.transpose(1, 3),
        lambda x: x[:, :, ::2],
        lambda x: x[:1].expand(6, -1, -1, -1),
    ],
    ids=["plain", "channels_last", "transposed", "strided", "expanded"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bfloat16, torch.bool])
def test_inputs_are_what_a_batch_has_in_any_layout(layout, dtype):
    x = layout(torch.arange(6 * 2 * 4 * 4).view(6, 2, 4, 4).to(dtype))
    data = TensorData(x, torch.arange(6), transform=torch.clone)
    positions = torch.tensor([4, 0, 4])
    found, expected = data.inputs(positions), data.batch(positions)[0]
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()
    assert torch.equal(found, x[[4, 0, 4]])


def test_inputs_of_images_in_channels_last_stay_so():
    data = TensorData(torch.zeros(3, 2, 4, 4).to(memory_format=torch.channels_last), torch.arange(3))
    assert data.inputs(torch.tensor([2, 0])).is_contiguous(memory_format=torch.channels_last)


def test_another_task_label_shares_the_memory():
    data = TensorData(torch.zeros(3, 2), torch.tensor([0, 1, 2]), transform=torch.neg)
    view = data.with_task_label(4)
    assert view.task_labels.tolist() == [4, 4, 4]
    assert data.task_labels.tolist() == [0, 0, 0]
    assert view.x.data_ptr() == data.x.data_ptr()
    assert view.transform is data.transform


def test_moving_keeps_all_three_tensors_and_the_transform():
    data = TensorData(torch.ones(3, 2), torch.tensor([0, 1, 2]), 3, transform=torch.neg)
    moved = data.to("cpu")
    for part, original in zip(moved.batch(slice(None)), data.batch(slice(None)), strict=True):
        assert torch.equal(part, original)


def test_samples_stack_into_data():
    data = TensorData.from_samples([(torch.ones(2), torch.tensor(3), 1), (np.zeros(2, np.float32), 4, torch.tensor(2))])
    assert data.x.tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert (data.targets.tolist(), data.task_labels.tolist()) == ([3, 4], [1, 2])


def test_labels_come_from_targets_or_from_the_samples():
    targets = torch.tensor([2, 0])
    assert labels_of(TensorData(torch.zeros(2, 1), targets)).tolist() == [2, 0]
    assert labels_of(TensorDataset(torch.zeros(2, 1), targets)).tolist() == [2, 0]
    assert labels_of(Labelled([np.int64(3), 1])).tolist() == [3, 1]
    listed = Labelled([9, 9])
    listed.targets = [4, 5]
    assert labels_of(listed).tolist() == [4, 5]


def test_labels_of_subsets_and_concatenations_are_not_read_sample_by_sample():
    class Counting(TensorData):
        reads = 0

        def __getitem__(self, index):
            Counting.reads += 1
            return super().__getitem__(index)

    data = Counting(torch.zeros(3, 1), torch.tensor([5, 6, 7]))
    assert labels_of(ConcatDataset([Subset(data, [2, 0]), data])).tolist() == [7, 5, 5, 6, 7]
    assert Counting.reads == 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, 1.0], "whole numbers"),
        (torch.tensor([0.0, 1.0]), "whole numbers"),
        (["cat", "dog"], "whole numbers"),
        ([None, None], "whole numbers"),
        ([0, -1], "labels go down to -1: expected class numbers ≥ 0; leave samples without a class out"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        labels_of(Labelled(labels))
    carried = Labelled([0, 0])
    carried.targets = labels
    with pytest.raises(ValueError, match=message):
        labels_of(carried)


def test_a_dataset_without_labels_is_refused_by_its_name():
    with pytest.raises(ValueError, match="Unlabelled is not labelled"):
        labels_of(Unlabelled())


def test_no_samples_are_no_labels():
    assert labels_of(Labelled([])).tolist() == []
