"""Batches from memory, from a DataLoader, and of new and old samples together."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from rwalk.streams import MixedLoader, TensorData, TensorLoader, data_loader
from rwalk.streams.loader import LABELS_AHEAD


def numbered(count, start=0):
    """Sample i has input i, label i + 100 and task label i + 200: parts that were mixed up would show."""
    index = torch.arange(start, start + count)
    return TensorData(index.float().view(-1, 1), index + 100, index + 200)


def together(loader):
    """All batches of a pass in one, and their sizes."""
    batches = list(loader)
    sizes = [len(batch[0]) for batch in batches]
    if not batches:
        return [], sizes
    x, y, task = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert torch.equal(x.flatten() + 100, y.float())
    assert torch.equal(y + 100, task)
    return (y - 100).tolist(), sizes


class Pairs(Dataset):
    """Samples of two parts, made one at a time."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return torch.full((2,), float(index)), index


@given(count=st.integers(1, 20), size=st.integers(1, 7), shuffle=st.booleans(), drop_last=st.booleans())
def test_a_pass_holds_what_a_dataloaders_holds(count, size, shuffle, drop_last):
    data = numbered(count)
    loader = TensorLoader(data, size, shuffle=shuffle, drop_last=drop_last)
    plain = DataLoader(data, batch_size=size, shuffle=shuffle, drop_last=drop_last)
    found, sizes = together(loader)
    expected, expected_sizes = together(plain)
    assert len(loader) == len(plain) == len(sizes)
    assert sizes == expected_sizes
    assert len(set(found)) == len(found)
    if not shuffle:
        assert found == expected
    if not drop_last:
        assert sorted(found) == list(range(count))


def test_a_pass_longer_than_the_labels_fetched_at_once_still_holds_everything_once():
    count = 2 * LABELS_AHEAD * 3 + 5
    for drop_last in (False, True):
        found, sizes = together(TensorLoader(numbered(count), 3, shuffle=True, drop_last=drop_last))
        assert sizes == [3] * (count // 3) + [2] * (not drop_last)
        assert len(set(found)) == len(found) == sum(sizes)


def test_an_order_is_gone_through_as_indexing_by_hand_would():
    data = numbered(3 * LABELS_AHEAD)
    data.transform = torch.neg
    torch.manual_seed(3)
    order = torch.randperm(len(data))
    torch.manual_seed(3)
    batches = list(TensorLoader(data, 2, shuffle=True))
    for batch, chosen in zip(batches, order.split(2), strict=True):
        for part, expected in zip(batch, data.batch(chosen), strict=True):
            assert torch.equal(part, expected)


def test_the_global_seed_decides_the_order_and_each_pass_has_its_own():
    loader = TensorLoader(numbered(50), 7, shuffle=True)
    torch.manual_seed(3)
    first, second = together(loader)[0], together(loader)[0]
    torch.manual_seed(3)
    expected = torch.randperm(50).tolist()
    assert first == expected
    assert second != first
    torch.manual_seed(3)
    assert together(TensorLoader(numbered(50), 7, shuffle=True))[0] == first


def test_batches_without_shuffling_are_views_of_the_data():
    data = numbered(6)
    batch = next(iter(TensorLoader(data, 4, shuffle=False)))
    assert batch[0].data_ptr() == data.x.data_ptr()


def test_data_in_memory_is_batched_by_indexing_and_anything_else_by_a_dataloader():
    data = numbered(6)
    assert isinstance(data_loader(data, 2, shuffle=True), TensorLoader)
    assert isinstance(data_loader(data, 2, shuffle=True, in_memory=False), DataLoader)
    assert isinstance(data_loader(data, 2, shuffle=True, num_workers=1), DataLoader)
    assert isinstance(data_loader(Pairs(), 2, shuffle=True), DataLoader)
    assert data_loader(data, 2, shuffle=True, pin_memory=False).pin_memory is False


def test_a_dataloader_gives_the_same_batches_of_data_in_memory():
    data = numbered(7)
    memory = together(data_loader(data, 3, shuffle=False, drop_last=True))
    assert together(data_loader(data, 3, shuffle=False, drop_last=True, in_memory=False)) == memory


def test_a_dataloader_reads_data_in_memory_a_batch_at_a_time():
    data, seen = numbered(7), []
    data.transform = lambda x: seen.append(len(x)) or -x
    batches = list(data_loader(data, 3, shuffle=False, in_memory=False))
    assert seen == [3, 3, 1]
    for batch, start in zip(batches, (0, 3, 6), strict=True):
        for part, expected in zip(batch, data.batch(slice(start, start + 3)), strict=True):
            assert torch.equal(part, expected)


def test_a_dataloader_with_workers_of_its_own_gives_the_same_batches():
    data = numbered(5)
    assert together(data_loader(data, 2, shuffle=False, num_workers=1)) == together(
        TensorLoader(data, 2, shuffle=False)
    )


def test_another_way_to_collate_is_given_samples():
    def columns(samples):
        assert isinstance(samples, list)
        return tuple(zip(*samples, strict=True))

    (batch,) = data_loader(numbered(2), 2, shuffle=False, collate_fn=columns)
    assert [[part.item() for part in column] for column in batch] == [[0.0, 1.0], [100, 101], [200, 201]]


def test_torchs_own_datasets_of_tensors_are_batched_in_memory_too():
    pairs = TensorDataset(torch.arange(5.0).view(-1, 1), torch.arange(5) + 100)
    loader = data_loader(ConcatDataset([pairs, Subset(pairs, [3])]), 4, shuffle=False, task_label=7)
    assert isinstance(loader, TensorLoader)
    batches = [[part.flatten().tolist() for part in batch] for batch in loader]
    assert batches == [[[0, 1, 2, 3], [100, 101, 102, 103], [7] * 4], [[4, 3], [104, 103], [7] * 2]]


def test_samples_without_a_task_label_get_task_0_or_the_one_given():
    batches = list(data_loader(Pairs(), 2, shuffle=False))
    assert [y.tolist() for _, y, _ in batches] == [[0, 1], [2, 3], [4]]
    assert [task.tolist() for *_, task in batches] == [[0, 0], [0, 0], [0]]
    *_, tasks = next(iter(data_loader(Pairs(), 5, shuffle=False, task_label=3)))
    assert tasks.tolist() == [3] * 5
    x = torch.cat([batch[0] for batch in batches])
    assert torch.equal(x, torch.arange(5.0).view(-1, 1).expand(5, 2))


def test_samples_with_a_task_label_keep_it():
    dataset = TensorDataset(torch.zeros(3, 2), torch.tensor([0, 1, 2]), torch.tensor([7, 8, 9]))
    (batch,) = data_loader(dataset, 3, shuffle=False, task_label=1)
    assert [part.tolist() for part in batch[1:]] == [[0, 1, 2], [7, 8, 9]]


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_holds_at_least_one_sample(size):
    with pytest.raises(ValueError, match=f"batch_size={size}"):
        TensorLoader(numbered(3), size, shuffle=False)
    new = TensorLoader(numbered(3), 1, shuffle=False)
    with pytest.raises(ValueError, match=f"old_batch_size={size}"):
        MixedLoader(new, numbered(3), size)


@given(new=st.integers(1, 25), old=st.integers(1, 9), size=st.integers(1, 5), share=st.integers(1, 12))
def test_every_batch_has_its_full_share_of_old_samples_and_each_as_often_as_another(new, old, size, share):
    torch.manual_seed(0)
    loader = MixedLoader(TensorLoader(numbered(new), size, shuffle=True), numbered(old, 1000), share)
    batches = list(loader)
    fresh, remembered = [], Counter(dict.fromkeys(range(1000, 1000 + old), 0))
    for x, y, task in batches:
        values = x.flatten().long()
        assert torch.equal(y, values + 100)
        assert torch.equal(task, values + 200)
        assert (values >= 1000).sum() == share
        assert (values[-share:] >= 1000).all()
        fresh += values[:-share].tolist()
        remembered.update(values[-share:].tolist())
    assert sorted(fresh) == list(range(new))
    assert len(loader) == len(batches) == -(-new // size)
    assert max(remembered.values()) - min(remembered.values()) <= 1


@given(old=st.integers(1, 9), share=st.integers(1, 30), batches=st.integers(1, 5))
def test_old_samples_are_drawn_a_permutation_at_a_time_when_they_run_out(old, share, batches):
    torch.manual_seed(0)
    loader = MixedLoader(TensorLoader(numbered(batches), 1, shuffle=False), numbered(old, 1000), share)
    found = torch.cat([batch[1][1:] for batch in loader]).tolist()
    torch.manual_seed(0)
    expected = []
    while len(expected) < share * batches:
        expected += (torch.randperm(old) + 1100).tolist()
    assert found == expected[: share * batches]


def test_old_samples_come_in_another_order_each_time_around():
    torch.manual_seed(0)
    old = 20
    loader = MixedLoader(TensorLoader(numbered(3), 1, shuffle=False), numbered(old, 1000), old)
    orders = [tuple(batch[1][1:].tolist()) for batch in loader]
    assert len(set(orders)) == 3
