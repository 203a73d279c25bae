"""Exemplars of data without class labels, nested samples, and rows that are mappings."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from rwalk.replay import SAMPLERS, ExemplarMemory, Sampler


class Made(Dataset):
    def __init__(self, make, count=6):
        self.make, self.count = make, count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.make(index)


def nested(index):
    return {"ids": torch.full((3,), index), "mask": (torch.ones(3),)}, torch.full((2,), index / 2)


def row(index):
    return {"ids": torch.full((3,), index), "label": index % 2}


@pytest.mark.parametrize("name", [name for name, kind in SAMPLERS.items() if kind.by_class])
def test_samplers_that_need_classes_say_so(name):
    memory = ExemplarMemory(total=4, sampler=name)
    with pytest.raises(ValueError, match=rf"sampler '{name}' chooses class by class.*take sampler='reservoir'"):
        memory.update(Made(nested), None, model=nn.Linear(1, 1))
    assert len(memory) == 0


def test_a_reservoir_keeps_any_samples_as_they_are():
    torch.manual_seed(0)
    memory = ExemplarMemory(total=4, sampler="reservoir")
    memory.update(Made(nested), None, task_label=3)
    memory.update(TensorDataset(torch.rand(6, 2), torch.rand(6)), None, task_label=4)
    assert len(memory) == 4
    assert memory.counts == {}
    for x, y, task in memory.samples:
        if task == 3:
            assert x["ids"].tolist() == [int(2 * y[0])] * 3
            assert x["mask"][0].tolist() == [1, 1, 1]
        else:
            assert (x.shape, y.shape, task) == ((2,), (), 4)


@pytest.mark.parametrize("sampler", ["uniform", "reservoir", "class-balanced-reservoir"])
def test_rows_are_kept_whole_with_their_label(sampler):
    memory = ExemplarMemory(total=4, sampler=sampler)
    memory.update(Made(row), torch.tensor([0, 1] * 3), task_label=3)
    assert sum(memory.counts.values()) == 4
    if sampler != "reservoir":
        assert memory.counts == {0: 2, 1: 2}
    for kept, target, task in memory.samples:
        assert set(kept) == {"ids", "label"}
        assert (target, task) == (int(kept["ids"][0]) % 2, 3)


class Scored(nn.Module):
    def __init__(self):
        super().__init__()
        self.classify = nn.Linear(3, 2)

    def forward(self, ids, labels=None):
        return {"logits": self.classify(ids.float())}


@pytest.mark.parametrize("name", [name for name, kind in SAMPLERS.items() if kind.needs_model])
def test_samplers_that_look_at_the_model_see_rows_new_and_kept(name):
    torch.manual_seed(0)
    memory, labels = ExemplarMemory(per_class=2, sampler=name), torch.tensor([0, 1] * 3)
    for _ in range(2):
        memory.update(Made(row), labels, model=Scored())
    assert memory.counts == {0: 2, 1: 2}
    assert all(target == int(kept["ids"][0]) % 2 for kept, target, _ in memory.samples)


def test_what_is_kept_shares_no_memory_with_the_dataset():
    x, y = torch.zeros(6, 2), torch.zeros(6, 3)
    memory = ExemplarMemory(total=6, sampler="reservoir")
    memory.update(Made(lambda index: ({"a": (x[index],)}, y[index])), None)
    x.fill_(1.0)
    y.fill_(1.0)
    assert all(float(kept["a"][0].sum() + target.sum()) == 0.0 for kept, target, _ in memory.samples)


def test_kept_samples_are_shown_to_a_sampler_in_the_form_of_the_new_ones():
    class Looks(Sampler):
        name, by_class = "looks", False

        def choose(self, candidates, budget):
            shown.append([part[0] for part in candidates.data])
            return torch.arange(budget)

    shown = []
    memory = ExemplarMemory(total=2, sampler=Looks())
    for make in (nested, nested, lambda index: (*nested(index), 9)):
        memory.update(Made(make), None, task_label=5)
    for _ in range(2):
        rows = ExemplarMemory(total=2, sampler=Looks())
        rows.update(Made(row), None)
        rows.update(Made(row), None)
    assert [[len(sample) for sample in parts] for parts in shown[:3]] == [[2], [2, 2], [3, 3]]
    assert [set(sample) for sample in shown[4]] == [{"ids", "label"}] * 2
    assert shown[2][0][2] == 5


def test_any_memory_comes_out_of_a_file_and_a_copy(tmp_path):
    for make, labels in ((nested, None), (row, torch.tensor([0, 1] * 3))):
        memory = ExemplarMemory(total=3, sampler="reservoir")
        memory.update(Made(make), labels)
        torch.save(memory.state_dict(), tmp_path / "memory.pt")
        other = ExemplarMemory(total=3, sampler="reservoir")
        other.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
        for each in (other, copy.deepcopy(memory)):
            assert str(each.samples) == str(memory.samples)
