"""Validation data: disjoint, stratified, the same in all views, and never from the test data."""

from collections import Counter
from dataclasses import replace
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rwalk.streams import (
    Benchmark,
    Data,
    Stream,
    benchmark,
    class_incremental,
    dataset_incremental,
    domain_incremental,
    permuted,
    with_validation,
)
from rwalk.streams.splits import hold_out
from streams.toys import Lazy, numbered, told

COUNTS = st.dictionaries(st.integers(0, 9), st.integers(2, 25), min_size=1, max_size=6)
FRACTIONS = st.floats(0.01, 0.99)


@given(COUNTS, FRACTIONS, st.integers(0, 3))
def test_every_class_gives_its_share_and_no_sample_is_on_both_sides(counts, fraction, seed):
    data = numbered(counts, seed)
    kept, held = hold_out(data.targets, fraction, seed)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(data)))
    assert kept.tolist() == sorted(kept.tolist())
    assert held.tolist() == sorted(held.tolist())
    for label, count in counts.items():
        share = int((data.targets[held] == label).sum())
        assert 1 <= share <= count - 1
        assert abs(share - fraction * count) <= 0.5 or share in (1, count - 1)
    assert torch.equal(hold_out(data.targets, fraction, seed)[1], held)


def test_which_samples_are_held_out_depends_on_the_seed_and_on_nothing_else():
    targets = torch.zeros(100, dtype=torch.int64)
    state = torch.get_rng_state()
    draws = [tuple(hold_out(targets, 0.2, seed)[1].tolist()) for seed in range(5)]
    assert torch.equal(torch.get_rng_state(), state)
    assert len(set(draws)) == 5
    often = Counter(chain.from_iterable(hold_out(targets, 0.5, seed)[1].tolist() for seed in range(200)))
    assert min(often[position] for position in range(100)) > 60  # 100 expected, standard deviation 7


@given(COUNTS, FRACTIONS, st.integers(0, 3), st.data())
def test_a_split_stream_is_held_out_experience_by_experience(counts, fraction, seed, data):
    train, test = numbered(counts, seed), numbered(dict.fromkeys(counts, 1))
    count = data.draw(st.integers(1, len(counts)))
    whole = class_incremental("toy", train, test, count, task_labels=True)
    parts = with_validation(whole, fraction, seed)
    for before, kept, held in zip(
        told(whole.train_stream), told(parts.train_stream), told(parts.valid_stream), strict=True
    ):
        assert sorted(kept + held) == sorted(before)
        assert not set(kept) & set(held)
    assert parts.test_stream is whole.test_stream
    assert parts.valid_stream.name == "valid"
    for stream in (parts.train_stream, parts.valid_stream):
        assert [e.task_label for e in stream] == list(range(count))
        assert [set(e.dataset.task_labels.tolist()) for e in stream] == [{task} for task in range(count)]
        assert [e.classes_in_this_experience for e in stream] == [
            e.classes_in_this_experience for e in whole.test_stream
        ]


def test_permutations_give_up_the_same_samples_and_share_memory():
    train = numbered({0: 20, 1: 20})
    train = replace_inputs(train, torch.rand(40, 6, generator=torch.Generator().manual_seed(1)))
    whole = permuted("toy", train, train, 3, task_labels=True)
    parts = with_validation(whole, 0.25)
    for stream, size in ((parts.train_stream, 30), (parts.valid_stream, 10)):
        assert [len(e.dataset) for e in stream] == [size] * 3
        assert len({e.dataset.x.data_ptr() for e in stream}) == 1
        assert [set(e.dataset.task_labels.tolist()) for e in stream] == [{0}, {1}, {2}]
        first, *others = (e.dataset.batch(slice(None))[0] for e in stream)
        for other in others:
            assert not torch.equal(other, first)
            assert torch.equal(other.sort(1).values, first.sort(1).values)


def replace_inputs(data, x):
    return type(data)(x, data.targets, data.task_labels)


def test_each_of_several_datasets_gives_its_share():
    parts = [Data(name, numbered({0: 8, 1: 4}, seed), numbered({0: 1, 1: 1})) for seed, name in enumerate("ab")]
    for whole in (domain_incremental("toy", parts), dataset_incremental("toy", parts, task_labels=True)):
        held_out = with_validation(whole, 0.25)
        for before, kept, held in zip(
            told(whole.train_stream), told(held_out.train_stream), told(held_out.valid_stream), strict=True
        ):
            assert sorted(kept + held) == before
            assert sorted(Counter(label for _, label in held).values()) == [1, 2]


def test_data_outside_memory_is_held_out_without_being_read():
    lazy = Lazy(torch.tensor([0, 1] * 10))
    parts = with_validation(class_incremental("toy", lazy, lazy, 2), 0.3)
    kept, held = told(parts.train_stream), told(parts.valid_stream)
    assert [len(part) for part in kept] == [7, 7]
    assert [len(part) for part in held] == [3, 3]
    assert sorted(chain(*kept, *held)) == sorted(zip(range(20), lazy.targets.tolist(), strict=True))


def test_where_tests_do_not_correspond_the_held_out_samples_are_tested_by_class():
    """Small experiences of classes 0 to 3 in any mixture; the test experiences are (0, 1) and (2, 3)."""
    data = numbered({0: 10, 1: 10, 2: 10, 3: 10})
    mixed = [data.subset(torch.arange(start, min(start + 3, 40))) for start in range(0, 40, 3)]
    split = class_incremental("toy", data, data, 2)
    parts = with_validation(replace(split, train_stream=Stream("train", mixed)), 0.5, seed=3)
    assert [set(e.classes_in_this_experience) for e in parts.valid_stream] == [{0, 1}, {2, 3}]
    held, kept = list(chain(*told(parts.valid_stream))), list(chain(*told(parts.train_stream)))
    assert sorted(held + kept) == sorted(chain(*told(split.train_stream)))
    assert Counter(label for _, label in held) == dict.fromkeys(range(4), 5)
    assert kept == sorted(kept)  # in order of arrival


def test_experiences_left_empty_fall_away():
    data = numbered({0: 4, 1: 4})
    single = [data.subset(torch.tensor([position])) for position in range(8)]
    split = class_incremental("toy", data, data, 2)
    parts = with_validation(replace(split, train_stream=Stream("train", single)), 0.5)
    assert [len(part) for part in told(parts.train_stream)] == [1] * 4


def test_domains_without_tasks_are_refused_with_the_way_to_do_it():
    data = numbered({0: 4, 1: 4})
    twice = permuted("toy", data, data, 2)
    three = Stream("train", [data, data, data])
    with pytest.raises(ValueError, match=r"several domains: hold validation data out before, as in online\(with_vali"):
        with_validation(replace(twice, train_stream=three))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2, float("nan")])
def test_a_share_that_is_none_is_refused(fraction):
    with pytest.raises(ValueError, match=f"fraction={fraction}: expected a share between 0 and 1"):
        with_validation(benchmark("split-digits"), fraction)


def test_holding_out_twice_or_from_a_single_sample_is_refused():
    digits = with_validation(benchmark("split-digits"))
    with pytest.raises(ValueError, match="split-digits has a validation stream already"):
        with_validation(digits)
    data = numbered({0: 3, 1: 1})
    with pytest.raises(ValueError, match="class 1 has one sample: nothing can be held out"):
        with_validation(class_incremental("toy", data, data, 1))


def test_a_benchmark_has_no_validation_data_unless_asked():
    stream = benchmark("split-digits").train_stream
    assert Benchmark("mine", stream, stream, 10, (64,)).valid_stream is None
