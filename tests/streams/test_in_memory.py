"""Which datasets are batched in memory, and that their samples are the same there."""

import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from rwalk.streams import TensorData
from rwalk.streams.in_memory import as_tensor_data


def pairs(count=4, start=0):
    x = torch.arange(start, start + count)
    return TensorDataset(x.float().view(-1, 1), x + 100)


def data(count=4, start=0, **options):
    x = torch.arange(start, start + count)
    return TensorData(x.float().view(-1, 1), x + 100, x + 200, **options)


def one_by_one(dataset, task_label=0):
    """Samples as a loop over the dataset sees them."""
    return [
        (x.flatten().tolist(), int(y), int(task[0]) if task else task_label)
        for x, y, *task in (dataset[position] for position in range(len(dataset)))
    ]


@pytest.mark.parametrize(
    "dataset",
    [
        pairs(),
        TensorDataset(torch.zeros(3, 2), torch.tensor([2, 0, 1]), torch.tensor([7, 8, 9])),
        Subset(pairs(), [3, 1, 1]),
        Subset(pairs(), range(2)),
        Subset(data(), [-1, 0]),
        Subset(Subset(data(), [3, 2, 0]), [2, 0]),
        ConcatDataset([pairs(), pairs(3, 50)]),
        ConcatDataset([data(), Subset(data(3, 50), [1]), pairs()]),
        ConcatDataset([data(transform=torch.neg), data(2, 50, transform=torch.neg)]),
    ],
)
def test_samples_are_those_that_the_dataset_gives_one_by_one(dataset):
    found = as_tensor_data(dataset, task_label=5)
    assert one_by_one(found) == one_by_one(dataset, task_label=5)


def test_data_in_memory_is_itself():
    samples = data()
    assert as_tensor_data(samples, task_label=5) is samples


class Own(TensorDataset):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 1, y


class Pictures(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return torch.zeros(1), index


@pytest.mark.parametrize(
    "dataset",
    [
        Pictures(),
        Own(*pairs().tensors),
        Subset(Pictures(), [0]),
        Subset(pairs(), []),
        ConcatDataset([pairs(), Pictures()]),
        ConcatDataset([data(), data(transform=torch.neg)]),
        ConcatDataset([pairs(), TensorDataset(torch.zeros(2, 3), torch.tensor([0, 1]))]),
        ConcatDataset([pairs(), TensorDataset(torch.zeros(2, 1).double(), torch.tensor([0, 1]))]),
        TensorDataset(torch.zeros(2, 1)),
        TensorDataset(torch.zeros(2, 1), torch.tensor([True, False])),
        TensorDataset(torch.zeros(2, 1), torch.tensor([0, -1])),
        TensorDataset(torch.zeros(2, 1), torch.tensor([0, 1]), torch.tensor([0.5, 1.0])),
        TensorDataset(*[torch.tensor([0, 1])] * 4),
    ],
)
def test_what_has_to_be_read_sample_by_sample_or_is_not_labelled_data_is_left_alone(dataset):
    assert as_tensor_data(dataset) is None
