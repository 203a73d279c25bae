"""Reservoirs: every sample of a stream without boundaries is equally likely to be kept."""

import logging
from collections import Counter

import pytest
import torch
from torch.utils.data import TensorDataset

from rwalk.replay import ExemplarMemory, reservoir

RUNS = 1200


def streamed(memory, labels, size):
    """Offer a stream in batches; sample i holds the number i."""
    labels = torch.tensor(labels)
    numbers = torch.arange(len(labels)).float()
    for start in range(0, len(labels), size):
        y = labels[start : start + size]
        memory.update(TensorDataset(numbers[start : start + size], y), y)
    return [int(x) for x, *_ in memory.samples]


def unevenness(counts, share, samples):
    """Of inclusion counts, each expected to be ``share`` of the runs; χ² with one degree less than samples.

    Samples of one run are not independent: a fixed number of them is kept, which takes the factor (n − 1)/n.
    """
    expected = RUNS * share
    squares = sum((counts[i] - expected) ** 2 for i in samples)
    return squares / (expected * (1.0 - share)) * (len(samples) - 1) / len(samples)


def inclusions(make, labels, size):
    torch.manual_seed(0)
    counts = Counter()
    for _ in range(RUNS):
        counts.update(streamed(make(), labels, size))
    return counts


@pytest.mark.parametrize("size", [1, 7, 30])
def test_every_sample_of_the_stream_is_equally_likely_however_it_is_cut(size):
    labels = [0] * 3 + [1] * 20 + [2] * 7  # classes are neither balanced nor mixed
    counts = inclusions(lambda: ExemplarMemory(total=6, sampler="reservoir"), labels, size)
    assert sum(counts.values()) == 6 * RUNS
    assert unevenness(counts, 6 / 30, range(30)) < 58.3  # 29 degrees of freedom: 1 in 1000


def test_keeping_the_last_samples_would_not_pass():
    counts = Counter(dict.fromkeys(range(24, 30), RUNS))
    assert unevenness(counts, 6 / 30, range(30)) > 58.3


@pytest.mark.parametrize(("size", "budget"), [(7, {"per_class": 2}), (1, {"total": 6}), (7, {"total": 6})])
def test_within_a_class_every_sample_is_equally_likely_however_classes_blur(budget, size):
    labels = [0, 0, 0, 1, 0, 0, 1, 0, 1, 2, 1, 0, 1, 2, 1, 2, 2, 0, 2, 1, 2, 2, 1, 2, 2, 1]
    counts = inclusions(lambda: ExemplarMemory(**budget, sampler="class-balanced-reservoir"), labels, size)
    for label, bound in ((0, 24.4), (1, 26.2), (2, 26.2)):  # 7, 8 and 8 degrees; 1 in 1000 is 24.4 and 26.2
        members = [i for i, other in enumerate(labels) if other == label]
        assert sum(counts[i] for i in members) == 2 * RUNS
        assert unevenness(counts, 2 / len(members), members) < bound


def test_a_balanced_reservoir_gives_up_places_as_classes_join_in_mid_stream():
    memory = ExemplarMemory(total=6, sampler="class-balanced-reservoir")
    torch.manual_seed(0)
    first = streamed(memory, [0] * 10, 3)
    assert memory.counts == {0: 6}
    y = torch.tensor([1, 0, 1, 1, 1])
    memory.update(TensorDataset(torch.arange(10.0, 15.0), y), y)
    assert memory.counts == {0: 3, 1: 3}
    kept = [int(x) for x, y, _ in memory.samples if int(y) == 0]
    assert set(kept) <= {*first, 11}


def test_a_plain_reservoir_follows_the_stream_and_knows_its_classes():
    memory = ExemplarMemory(total=40, sampler="reservoir")
    torch.manual_seed(0)
    streamed(memory, [5] * 30 + [3] * 10, 8)
    assert memory.counts == {3: 10, 5: 30}
    assert len(memory) == memory.budget(5) == 40
    streamed(memory, [3] * 160, 8)
    assert len(memory) == 40
    assert memory.counts[3] > memory.counts.get(5, 0)


def test_the_smallest_keys_stay_in_order():
    assert reservoir(torch.tensor([0.5, 0.1, 0.9, 0.2]), 3).tolist() == [1, 3, 0]
    assert reservoir(torch.empty(0), 3).tolist() == []


def test_a_saved_reservoir_goes_on_as_the_original(tmp_path):
    for sampler in ("reservoir", "class-balanced-reservoir"):
        memory, other = (ExemplarMemory(total=4, sampler=sampler) for _ in range(2))
        torch.manual_seed(0)
        streamed(memory, [0, 1] * 20, 6)
        torch.save(memory.state_dict(), tmp_path / "memory.pt")
        other.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
        found = []
        for each in (memory, other):
            torch.manual_seed(1)
            found.append(streamed(each, [1, 0, 2] * 15, 4))
        assert found[0] == found[1]


def test_a_reservoir_over_all_classes_has_no_budget_for_each():
    with pytest.raises(ValueError, match=r"per_class=3: 'reservoir' chooses among .* take 'class-balanced-reservoir'"):
        ExemplarMemory(per_class=3, sampler="reservoir")


def test_a_class_that_has_only_begun_is_no_reason_to_complain(caplog):
    with caplog.at_level(logging.WARNING, logger="rwalk"):
        streamed(ExemplarMemory(per_class=3, sampler="class-balanced-reservoir"), [0, 1, 1], 1)
    assert caplog.messages == []
