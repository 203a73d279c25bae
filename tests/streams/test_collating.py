"""Samples of any structure as batches, and mixed with remembered ones."""

import pickle

import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from rwalk.streams import MixedLoader, TensorData, data_loader
from rwalk.streams.collating import Collate, collate, concatenated


class Made(Dataset):
    def __init__(self, make, count=5, **attributes):
        self.make, self.count = make, count
        vars(self).update(attributes)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.make(index)


def pair_with_mask(index):
    return (torch.full((2,), float(index)), torch.tensor([True, index % 2 == 0])), index / 2


def row(index):
    return {"input_ids": [index, index + 1], "text": str(index), "label": index % 3}


def sequence(index):
    return torch.full((index + 1,), float(index)), index


def pad(samples):
    """Pairs ``(sequence, label)`` as ``((padded, lengths), labels)``."""
    xs, ys = zip(*samples, strict=True)
    lengths = torch.tensor([len(x) for x in xs])
    return (torch.nn.utils.rnn.pad_sequence(xs, batch_first=True), lengths), torch.tensor(ys)


def test_nested_samples_keep_their_structure():
    first, _ = data_loader(Made(pair_with_mask), 3, shuffle=False, task_label=7)
    (x, mask), y, tasks = first
    assert x.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert mask.tolist() == [[True, True], [True, False], [True, True]]
    assert (y.tolist(), y.dtype) == ([0.0, 0.5, 1.0], torch.get_default_dtype())
    assert tasks.tolist() == [7, 7, 7]


def test_rows_become_columns_and_label_becomes_labels():
    _, second = data_loader(Made(row), 3, shuffle=False, task_label=7)
    assert set(second) == {"input_ids", "text", "labels", "task_labels"}
    assert second["input_ids"].tolist() == [[3, 4], [4, 5]]
    assert second["text"] == ["3", "4"]
    assert second["labels"].tolist() == [0, 1]
    assert second["task_labels"].tolist() == [7, 7]


def test_rows_keep_labels_and_task_labels_of_their_own():
    rows = Made(lambda index: {"labels": [0.5], "label": index, "task_labels": index + 4})
    (batch,) = data_loader(rows, 5, shuffle=False, task_label=7)
    assert batch["labels"].tolist() == [[0.5]] * 5
    assert batch["label"].tolist() == [0, 1, 2, 3, 4]
    assert batch["task_labels"].tolist() == [4, 5, 6, 7, 8]


def test_rows_of_a_hugging_face_dataset_are_read_as_they_are():
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"input_ids": [[1, 2], [3, 4], [5, 6]], "score": [0.5, 1.0, 1.5]})
    for source in (table, table.with_format("torch")):
        (batch,) = data_loader(source, 3, shuffle=False)
        assert batch["input_ids"].tolist() == [[1, 2], [3, 4], [5, 6]]
        assert batch["score"].dtype == torch.float32
        assert batch["task_labels"].tolist() == [0, 0, 0]


def test_samples_of_several_lengths_need_a_collate_fn_and_the_message_says_so():
    with pytest.raises(ValueError, match=r"cannot be stacked.*train\(\.\.\., collate_fn=pad\)"):
        next(iter(data_loader(Made(sequence), 3, shuffle=False)))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_collate_fn_is_an_option_or_an_attribute_of_the_dataset(workers):
    plain, marked = Made(sequence), Made(sequence, collate_fn=pad)
    for dataset, options in (
        (plain, {"collate_fn": pad}),
        (marked, {}),
        (Subset(marked, range(5)), {}),
        (ConcatDataset([marked, marked]), {}),
        (Made(sequence, collate_fn=list), {"collate_fn": pad}),  # what is asked for counts
    ):
        (x, lengths), y, tasks = next(
            iter(data_loader(dataset, 3, shuffle=False, task_label=2, num_workers=workers, **options))
        )
        assert x.tolist() == [[0, 0, 0], [1, 1, 0], [2, 2, 2]]
        assert (lengths.tolist(), y.tolist(), tasks.tolist()) == ([1, 2, 3], [0, 1, 2], [2, 2, 2])


def test_a_collate_fn_that_makes_no_batch_is_refused():
    for function in (lambda samples: samples[0][0], lambda samples: (samples,)):
        with pytest.raises(TypeError, match=r"collate_fn made a \w+ of 3 samples: expected a batch \(x, y\)"):
            next(iter(data_loader(Made(sequence), 3, shuffle=False, collate_fn=function)))


def test_collate_lists_what_is_no_number():
    thing = object()
    assert collate([thing, thing]) == [thing, thing]


def mixed(new, old, size, **options):
    torch.manual_seed(0)
    loader = MixedLoader(data_loader(new, 2, shuffle=False, **options), old, size)
    assert len(loader) == len(loader.new)
    return list(loader)


@pytest.mark.parametrize("workers", [0, 1])
def test_remembered_samples_are_there_before_a_users_collate_fn_pads(workers):
    old = [(torch.full((6,), 9.0), 9, 5), (torch.full((2,), 8.0), 8, 4)]
    batches = mixed(Made(sequence, 4), old, 2, collate_fn=pad, task_label=1, num_workers=workers)
    for start, ((x, lengths), y, tasks) in zip((0, 2), batches, strict=True):
        assert x.shape == (4, 6)
        assert (y[:2].tolist(), tasks[:2].tolist()) == ([start, start + 1], [1, 1])
        assert dict(zip(y[2:].tolist(), tasks[2:].tolist(), strict=True)) == {9: 5, 8: 4}
        assert dict(zip(y.tolist(), lengths.tolist(), strict=True)) == {
            start: start + 1,
            start + 1: start + 2,
            9: 6,
            8: 2,
        }


def test_remembered_rows_join_new_ones():
    batches = mixed(Made(row, 4), [(row(40), 1, 6), (row(50), 2, 7)], 2, task_label=1)
    assert len(batches) == 2
    for start, batch in zip((0, 2), batches, strict=True):
        assert batch["input_ids"][:, 0].tolist()[:2] == [start, start + 1]
        assert sorted(batch["input_ids"][2:, 0].tolist()) == [40, 50]
        assert sorted(batch["task_labels"].tolist()) == [1, 1, 6, 7]
        assert sorted(batch["text"]) == sorted([str(start), str(start + 1), "40", "50"])


def test_remembered_samples_take_the_form_of_the_new_ones():
    triples = Made(lambda index: (torch.tensor([float(index)]), index, index + 10), 2)
    (batch,) = mixed(triples, [(torch.tensor([7.0]), 7, 3)], 1)
    assert [part.flatten().tolist() for part in batch] == [[0, 1, 7], [0, 1, 7], [10, 11, 3]]


def test_other_targets_than_classes_join_in_memory():
    new, old = TensorData(torch.zeros(4, 1), torch.rand(4, 2)), TensorData(torch.ones(2, 1), torch.rand(2, 2), 5)
    for x, y, tasks in mixed(new, old, 2):
        assert sorted(map(tuple, y[2:].tolist())) == sorted(map(tuple, old.targets.tolist()))
        assert (x.flatten().tolist(), tasks.tolist()) == ([0, 0, 1, 1], [0, 0, 5, 5])


def test_two_memories_join_one_batch():
    new = data_loader(Made(sequence, 2, collate_fn=pad), 2, shuffle=False)
    loader = MixedLoader(MixedLoader(new, [(torch.ones(3), 8, 1)], 1), [(torch.ones(1), 9, 2)], 2)
    (((_, lengths), y, tasks),) = list(loader)
    assert y.tolist() == [0, 1, 9, 9, 8]
    assert tasks.tolist() == [0, 0, 2, 2, 1]
    assert lengths.tolist() == [1, 2, 1, 1, 3]


def test_nothing_remembered_is_refused():
    with pytest.raises(ValueError, match="nothing is remembered"):
        MixedLoader(data_loader(Made(sequence), 2, shuffle=False), [], 2)


def test_batches_of_one_structure_are_joined_and_others_refused():
    first = {"a": (torch.zeros(1, 2), ["x"]), "b": torch.zeros(1)}
    second = {"a": (torch.ones(2, 2), ["y", "z"]), "b": torch.ones(2)}
    found = concatenated(first, second)
    assert found["a"][0].tolist() == [[0, 0], [1, 1], [1, 1]]
    assert (found["a"][1], found["b"].tolist()) == (["x", "y", "z"], [0, 1, 1])
    with pytest.raises(ValueError, match=r"differ in shape .*: let collate_fn bring all batches to one shape"):
        concatenated([torch.zeros(1, 2)], [torch.zeros(1, 3)])


def test_loaders_are_pickled():
    new = data_loader(Made(pair_with_mask, 2), 2, shuffle=False)
    MixedLoader(new, [(pair_with_mask(8)[0], 4.0, 1)], 1)
    (batch,) = list(pickle.loads(pickle.dumps(new)))
    assert batch[1].tolist() == [0.0, 0.5, 4.0]
    assert isinstance(new.collate_fn, Collate)
