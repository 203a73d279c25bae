"""Replay in training of regression, several labels, sequences, dictionaries and rows of a table."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from rwalk.streams import Stream, TensorData
from rwalk.training import BasePlugin, Naive, ReplayPlugin


class Made(Dataset):
    def __init__(self, make, start=0, count=8, **attributes):
        self.make, self.start, self.count = make, start, count
        vars(self).update(attributes)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.make(self.start + index)


def pad(samples):
    xs, ys = zip(*samples, strict=True)
    lengths = torch.tensor([len(x) for x in xs])
    return (nn.utils.rnn.pad_sequence(xs, batch_first=True), lengths), torch.stack(ys)


def number(index):
    return torch.full((3,), float(index)), torch.tensor([float(index)])


def several(index):
    return torch.full((3,), float(index)), torch.tensor([index % 2, 1, 0]).float()


def dictionary(index):
    return {"ids": torch.full((3,), float(index)), "mask": torch.ones(3)}, torch.tensor([float(index)])


def row(index):
    return {"ids": [float(index)] * 3, "label": index % 4}


def sequence(index):
    return torch.full((index % 5 + 1,), float(index)), torch.tensor([float(index)])


def first_numbers(batch):
    """What tells samples apart."""
    x = batch["ids"] if isinstance(batch, dict) else batch[0]
    x = x["ids"] if isinstance(x, dict) else x[0] if isinstance(x, tuple | list) else x
    return x[:, 0].tolist()


class Loop(Naive):
    """Takes any batch: the number that tells a sample apart is its input."""

    def _begin_iteration(self):
        pass

    def forward(self):
        return self.model(torch.tensor(first_numbers(self.mbatch)).unsqueeze(1))

    def criterion(self):
        return self.mb_output.square().mean()

    def _check_labels(self):
        pass


class Seen(BasePlugin):
    def __init__(self):
        self.batches = []

    def before_forward(self, strategy, **kwargs):
        tasks = strategy.mbatch["task_labels"] if isinstance(strategy.mbatch, dict) else strategy.mbatch[-1]
        self.batches.append((strategy.experience.current_experience, first_numbers(strategy.mbatch), tasks.tolist()))


def loop(*plugins):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    strategy = Loop(model=model, optimizer=optimizer, train_mb_size=4, train_epochs=2, plugins=list(plugins))
    strategy.evaluator.track_training = False
    return strategy


KINDS = {
    "numbers": (number, {}),
    "several labels": (several, {}),
    "dictionaries": (dictionary, {}),
    "rows": (row, {}),
    "sequences": (sequence, {"collate_fn": pad}),
}


@pytest.mark.parametrize(("make", "attributes"), KINDS.values(), ids=KINDS)
def test_each_later_batch_holds_new_and_remembered_samples(make, attributes):
    torch.manual_seed(0)
    seen, replay = Seen(), ReplayPlugin(mem_size=4, sampler="reservoir", batch_size_mem=3)
    data = [Made(make, start, **attributes) for start in (0, 100)]
    loop(seen, replay).train(Stream("train", data, [5, 6]))
    first, second = ([batch[1:] for batch in seen.batches if batch[0] == index] for index in (0, 1))
    assert [len(numbers) for numbers, _ in first] == [4] * 4
    assert [len(numbers) for numbers, _ in second] == [7] * 4
    for numbers, tasks in second:
        assert all(number >= 100 for number in numbers[:4])
        assert all(number < 100 for number in numbers[4:])
        assert tasks == [6] * 4 + [5] * 3
    assert sorted(n for numbers, _ in second[:2] for n in numbers[:4]) == list(range(100, 108))


@pytest.mark.parametrize(("make", "attributes"), [KINDS[name] for name in KINDS if name != "sequences"])
def test_batch_by_batch_any_data_is_remembered(make, attributes):
    torch.manual_seed(0)
    seen, replay = Seen(), ReplayPlugin(mem_size=5, sampler="reservoir", batch_size_mem=2, update="iteration")
    loop(seen, replay).train(Stream("train", [Made(make, 0), Made(make, 100)]))
    assert [len(numbers) for _, numbers, _ in seen.batches] == [4] + [6] * 7
    assert len(replay.memory) == 5
    for (_, before, _), (_, after, _) in zip(seen.batches[:1], seen.batches[1:2], strict=True):
        assert set(after[4:]) <= set(before)


def test_samplers_that_need_classes_say_so_before_anything_is_trained():
    seen = Seen()
    for plugin, message in (
        (ReplayPlugin(per_class=2), "sampler 'uniform' chooses class by class.*take sampler='reservoir'"),
        (ReplayPlugin(mem_size=2, sampler="class-balanced-reservoir", update="iteration"), "class-balanced-reservoir"),
        (ReplayPlugin(mem_size=2, sampler="reservoir", batch_size_mem="balanced"), "'balanced' balances classes"),
    ):
        with pytest.raises(ValueError, match=message):
            loop(plugin, seen).train(Stream("train", [Made(number)]))
    assert seen.batches == []


def test_rows_with_class_labels_are_chosen_and_balanced_by_class():
    torch.manual_seed(0)
    seen, replay = Seen(), ReplayPlugin(per_class=2, batch_size_mem="balanced")
    data = [
        Made(lambda i: {"ids": [float(i)] * 3, "label": i % 2}),
        Made(lambda i: {"ids": [float(i)] * 3, "label": 2}, 100),
    ]
    loop(seen, replay).train(Stream("train", data))
    assert replay.memory.counts == {0: 2, 1: 2, 2: 2}
    for index, numbers, _ in seen.batches:
        if index == 1:
            assert [sum(n < 100 and n % 2 == odd for n in numbers) for odd in (0, 1)] == [4, 4]


class Scored(nn.Module):
    def __init__(self):
        super().__init__()
        self.classify = nn.Linear(3, 4)

    def forward(self, ids, labels=None):
        return {"logits": self.classify(ids)}


@pytest.mark.parametrize("sampler", ["entropy", "plane-distance", "mean-of-features"])
def test_rows_are_chosen_by_what_a_model_like_hugging_faces_makes_of_them(sampler):
    torch.manual_seed(0)
    model, replay = Scored(), ReplayPlugin(per_class=2, sampler=sampler)
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    strategy = Naive(model=model, optimizer=sgd, train_mb_size=4, plugins=[replay])
    strategy.train(Stream("train", [Made(row), Made(row, 100)]))
    assert replay.memory.counts == {0: 2, 1: 2, 2: 2, 3: 2}


def test_regression_in_memory_is_replayed():
    torch.manual_seed(0)
    x = torch.arange(8.0).unsqueeze(1)
    data = [TensorData(x, 2 * x), TensorData(x + 100, 2 * x)]
    seen = Seen()
    loop(seen, ReplayPlugin(mem_size=4, sampler="reservoir")).train(Stream("train", data))
    assert all(sum(n < 100 for n in numbers) == 4 for index, numbers, _ in seen.batches if index == 1)


def test_a_plugin_goes_on_from_its_state_and_is_copied_before_in_and_after_training():
    copies = []

    class Copy(BasePlugin):
        def after_training_iteration(self, strategy, **kwargs):
            copies.append(copy.deepcopy(replay))
            copies.append(pickle.loads(pickle.dumps(replay)))

    def end(plugin, data):
        torch.manual_seed(1)
        seen = Seen()
        loop(plugin, seen).train(Stream("train", data))
        return [numbers for _, numbers, _ in seen.batches], str(plugin.memory.samples)

    stream = [Made(sequence, start, collate_fn=pad) for start in (0, 100, 200)]
    replay = ReplayPlugin(mem_size=4, sampler="reservoir", seed=3)
    fresh = copy.deepcopy(replay)
    loop(replay, Copy()).train(Stream("train", stream[:2]))
    resumed = ReplayPlugin(mem_size=4, sampler="reservoir", seed=0)
    resumed.load_state_dict(copy.deepcopy(replay.state_dict()))
    others = [resumed, copy.deepcopy(replay), pickle.loads(pickle.dumps(replay)), copies[-1]]
    assert len(copies[-1].memory) == 4
    loop(fresh).train(Stream("train", stream[:2]))  # as its original went on
    expected = end(replay, stream[2:])
    assert all(end(other, stream[2:]) == expected for other in others[:3])
    assert len({str(other.memory.samples) for other in (replay, resumed)}) == 1
