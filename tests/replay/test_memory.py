"""Exemplars within their budget."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, TensorDataset

from rwalk.replay import ExemplarMemory
from rwalk.streams import TensorData


def numbered(labels, start=0):
    """Sample i holds the number start + i."""
    labels = torch.tensor(labels)
    return TensorDataset(torch.arange(start, start + len(labels)).float(), labels), labels


def kept(memory):
    """The numbers kept, by class."""
    found = {}
    for x, y, _ in memory.samples:
        found.setdefault(int(y), []).append(int(x))
    return found


def test_each_class_keeps_its_own_budget():
    memory = ExemplarMemory(per_class=2)
    memory.update(*numbered([3, 3, 3, 8]))
    assert memory.counts == {3: 2, 8: 1}
    assert len(memory) == 3
    memory.update(*numbered([5, 5, 5, 5], start=10))
    assert memory.counts == {3: 2, 8: 1, 5: 2}
    found = kept(memory)
    assert len(set(found[3])) == 2
    assert set(found[3]) <= {0, 1, 2}
    assert found[8] == [3]
    assert set(found[5]) <= {10, 11, 12, 13}


def test_a_total_budget_is_shared_out_and_classes_give_up_exemplars_as_others_join():
    memory = ExemplarMemory(total=7)
    memory.update(*numbered([0] * 20 + [1] * 20))
    assert memory.counts == {0: 4, 1: 3}
    before = kept(memory)
    memory.update(*numbered([2] * 20, start=100))
    assert memory.counts == {0: 3, 1: 2, 2: 2}
    after = kept(memory)
    for label in (0, 1):
        assert set(after[label]) <= set(before[label])
    assert all(number >= 100 for number in after[2])


@given(
    total=st.integers(1, 30),
    tasks=st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=12), min_size=1, max_size=4),
)
def test_a_total_budget_is_never_exceeded_and_shares_differ_by_one_at_most(total, tasks):
    torch.manual_seed(0)
    memory = ExemplarMemory(total=total)
    for labels in tasks:
        memory.update(*numbered(labels))
        assert len(memory) <= total
        budgets = [memory.budget(label) for label in memory.counts]
        assert sum(budgets) == total
        assert max(budgets) - min(budgets) <= 1
        assert all(memory.counts[label] <= budget for label, budget in zip(memory.counts, budgets, strict=True))


def test_old_and_new_samples_of_a_class_seen_again_are_equally_likely():
    torch.manual_seed(0)
    counts, runs = Counter(), 3000
    for _ in range(runs):
        memory = ExemplarMemory(per_class=2)
        memory.update(*numbered([4, 4]))
        memory.update(*numbered([4, 4, 4], start=2))
        counts.update(kept(memory)[4])
        assert memory.counts == {4: 2}
    expected = 2 * runs / 5  # each of five samples is kept with probability 2/5
    assert set(counts) == set(range(5))
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 18.5  # 4 degrees, 1 in 1000


def test_what_stays_after_giving_up_is_again_uniform():
    torch.manual_seed(0)
    counts, runs = Counter(), 2000
    for _ in range(runs):
        memory = ExemplarMemory(total=4)
        memory.update(*numbered([0] * 5))
        memory.update(*numbered([1] * 5))
        counts.update(kept(memory)[0])
    expected = 2 * runs / 5
    assert set(counts) == set(range(5))
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 18.5


def test_a_class_that_does_not_come_again_keeps_the_exemplars_it_has():
    torch.manual_seed(0)
    memory = ExemplarMemory(per_class=3)
    memory.update(*numbered([0] * 10))
    before = kept(memory)[0]
    memory.update(*numbered([1] * 10))
    assert kept(memory)[0] == before


def test_a_sample_keeps_its_task_label_or_gets_the_one_given():
    memory = ExemplarMemory(per_class=1)
    memory.update(*numbered([0]), task_label=5)
    labelled = TensorData(torch.zeros(1, 2), torch.tensor([1]), task_label=7)
    memory.update(labelled, labelled.targets, task_label=5)
    assert [int(task) for *_, task in memory.samples] == [5, 7]


def test_only_the_chosen_samples_are_read():
    class Counting(Dataset):
        reads = 0

        def __len__(self):
            return 100

        def __getitem__(self, index):
            self.reads += 1
            return torch.zeros(1), 0

    dataset = Counting()
    ExemplarMemory(per_class=3).update(dataset, torch.zeros(100, dtype=torch.int64))
    assert dataset.reads == 3


@pytest.mark.parametrize("given", [list, tuple, torch.Tensor.numpy, torch.Tensor.int, torch.Tensor.tolist])
def test_labels_may_be_any_whole_numbers(given):
    dataset, labels = numbered([3, 3, 5, 5, 5])
    memory = ExemplarMemory(per_class=2)
    memory.update(dataset, given(labels))
    assert memory.counts == {3: 2, 5: 2}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda labels: labels[:2], ValueError, r"labels of shape \(2,\) for 5 samples: expected shape \(5,\)"),
        (lambda labels: labels.repeat(2), ValueError, r"labels of shape \(10,\) for 5 samples"),
        (lambda labels: labels[:, None], ValueError, r"labels of shape \(5, 1\) for 5 samples"),
        (lambda labels: labels + 0.5, TypeError, r"labels of torch.float32: expected whole numbers"),
        (lambda labels: labels.double().numpy(), TypeError, r"labels of torch.float64: expected whole numbers"),
        (lambda labels: ["a"] * 5, TypeError, r"labels are a list that makes no tensor: expected whole numbers"),
        (lambda labels: {"labels": labels}, TypeError, r"labels are a dict that makes no tensor"),
    ],
)
def test_labels_that_are_not_one_whole_number_a_sample_are_refused(change, error, message):
    dataset, labels = numbered([3, 3, 5, 5, 5])
    memory = ExemplarMemory(per_class=2)
    memory.update(dataset, labels)
    before = [float(x) for x, *_ in memory.samples]
    with pytest.raises(error, match=message):
        memory.update(dataset, change(labels))
    assert [float(x) for x, *_ in memory.samples] == before


@pytest.mark.parametrize("budgets", [{}, {"per_class": 2, "total": 3}])
def test_exactly_one_budget_is_needed(budgets):
    with pytest.raises(ValueError, match="expected exactly one of the two budgets"):
        ExemplarMemory(**budgets)


@pytest.mark.parametrize("name", ["per_class", "total"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_a_budget_is_a_whole_number_from_1(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: expected at least 1 exemplar"):
        ExemplarMemory(**{name: value})


def test_a_saved_memory_goes_on_where_it_stood():
    torch.manual_seed(0)
    memory = ExemplarMemory(total=5)
    memory.update(*numbered([1, 1, 0, 0, 2]))
    other = ExemplarMemory(total=5)
    other.load_state_dict(memory.state_dict())
    assert other.counts == memory.counts
    assert kept(other) == kept(memory)
    for each in (memory, other):
        torch.manual_seed(1)
        each.update(*numbered([3, 3, 0], start=50))
    assert kept(other) == kept(memory)


def test_a_saved_memory_is_not_changed_by_what_comes_later():
    memory = ExemplarMemory(per_class=1)
    memory.update(*numbered([0]))
    state = memory.state_dict()
    memory.update(*numbered([1]))
    assert list(state["samples"]) == [0]


def test_a_memory_of_another_budget_is_refused():
    memory = ExemplarMemory(per_class=2)
    with pytest.raises(ValueError, match="per_class=2, total=None; this one has per_class=None, total=2"):
        ExemplarMemory(total=2).load_state_dict(memory.state_dict())


def test_batches_for_a_loop_of_ones_own():
    memory = ExemplarMemory(per_class=5)
    labels = torch.arange(10) % 2
    x = torch.arange(10.0).view(10, 1)
    memory.update(TensorDataset(x, labels), labels, 3)
    drawn = memory.batches(4, seed=0)
    batches = [next(drawn) for _ in range(5)]
    for inputs, targets, tasks in batches:
        assert inputs.shape == (4, 1)
        assert torch.equal(inputs.flatten().long() % 2, targets)  # each with its own label
        assert tasks.tolist() == [3] * 4
    values = torch.cat([inputs for inputs, *_ in batches]).flatten().tolist()
    assert sorted(values[:10]) == sorted(values[10:]) == list(range(10))  # all once, then all again
    assert values[:10] != values[10:]
    again = memory.batches(4, seed=0)
    assert all(torch.equal(next(again)[0], batch[0]) for batch in batches)


def test_batches_follow_the_memory_and_are_never_larger():
    memory = ExemplarMemory(per_class=2)
    memory.update(TensorDataset(torch.zeros(2, 1), torch.zeros(2).long()), torch.zeros(2).long())
    drawn = memory.batches(32)
    assert len(next(drawn)[1]) == 2
    memory.update(TensorDataset(torch.ones(2, 1), torch.ones(2).long()), torch.ones(2).long())
    next(drawn)
    assert set(torch.cat([next(drawn)[1] for _ in range(2)]).tolist()) == {0, 1}


def test_batches_of_rows():
    memory = ExemplarMemory(total=4, sampler="reservoir")
    memory.update([{"input_ids": torch.tensor([i, i]), "labels": i % 2} for i in range(4)], None)
    batch = next(memory.batches(3))
    assert batch["input_ids"].shape == (3, 2)
    assert torch.equal(batch["input_ids"][:, 0] % 2, batch["labels"])


@pytest.mark.parametrize("size", [0, -1, True, 2.0])
def test_batches_of_no_size_are_refused(size):
    memory = ExemplarMemory(per_class=2)
    memory.update(TensorDataset(torch.zeros(2, 1), torch.zeros(2).long()), torch.zeros(2).long())
    with pytest.raises(ValueError, match="size="):
        memory.batches(size)


def test_no_batches_of_an_empty_memory():
    with pytest.raises(ValueError, match="the memory is empty"):
        ExemplarMemory(per_class=2).batches(3)
