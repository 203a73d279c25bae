"""Small labelled data whose samples can be told apart."""

import torch
from torch.utils.data import Dataset

from rwalk.streams import TensorData


def numbered(counts, seed=0, **options):
    """``counts[label]`` samples of each class, in a random order; sample i holds the number i."""
    labels = torch.cat([torch.full((count,), label) for label, count in counts.items()])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return TensorData(torch.arange(len(labels)).float().view(-1, 1), labels[order], **options)


def numbers(dataset):
    """The numbers of the samples in a dataset, and their labels."""
    samples = [dataset[position] for position in range(len(dataset))]
    return [int(x) for x, *_ in samples], [int(y) for _, y, *_ in samples]


def told(stream):
    """Pairs (number, label) of all samples of a stream, experience by experience."""
    return [list(zip(*numbers(experience.dataset), strict=True)) for experience in stream]


class Lazy(Dataset):
    """Sample i is the number i, made when it is asked for; counts how many were."""

    def __init__(self, targets):
        self.targets, self.reads = targets, 0

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError(index)
        self.reads += 1
        return torch.tensor([float(index)]), int(self.targets[index])
