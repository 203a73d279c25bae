"""Task-free streams."""

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rwalk.streams import class_incremental, data_loader, online, permuted, taught_after, with_validation
from rwalk.streams.online import arrival_times
from streams.toys import Lazy, numbered, numbers, told


def split(counts, n_experiences, **options):
    samples = numbered(counts)
    return samples, class_incremental("toy", samples, samples, n_experiences, **options)


@given(
    st.dictionaries(st.integers(0, 9), st.integers(1, 12), min_size=1, max_size=5),
    st.floats(0, 1),
    st.integers(1, 15),
    st.integers(0, 3),
)
def test_every_sample_arrives_once_in_experiences_of_the_size_asked_for(counts, transition, size, seed):
    samples, whole = split(counts, len(counts))
    arrived = told(online(whole, size, transition=transition, seed=seed).train_stream)
    assert sorted(pair for part in arrived for pair in part) == list(enumerate(samples.targets.tolist()))
    assert {len(part) for part in arrived[:-1]} <= {size}
    assert len(arrived) == -(-len(samples) // size)


@given(st.integers(1, 40), st.integers(1, 40))
def test_as_many_experiences_as_asked_for_differ_by_one_sample_at_most(count, n_experiences):
    _, whole = split({0: count}, 1)
    if n_experiences > count:
        with pytest.raises(ValueError, match=f"n_experiences={n_experiences}: expected 1 to {count}"):
            online(whole, n_experiences=n_experiences)
        return
    sizes = [len(e.dataset) for e in online(whole, n_experiences=n_experiences).train_stream]
    assert len(sizes) == n_experiences
    assert max(sizes) - min(sizes) <= 1


def test_without_transition_an_experience_ends_before_the_next_begins_and_its_samples_are_shuffled():
    _, whole = split({0: 30, 1: 20, 2: 10}, 3)
    arrived = [pair for part in told(online(whole, 1).train_stream) for pair in part]
    assert [label for _, label in arrived] == [0] * 30 + [1] * 20 + [2] * 10
    first = [number for number, _ in arrived[:30]]
    assert first != sorted(first)
    again, other = (told(online(whole, 1, seed=seed).train_stream) for seed in (0, 1))
    assert [pair for part in again for pair in part] == arrived
    assert [pair for part in other for pair in part] != arrived


@pytest.mark.parametrize("width", [0.2, 0.5, 1.0])
def test_in_a_transition_the_share_of_the_new_rises_linearly_from_none_to_all(width):
    each = 200_000
    new = (arrival_times([each, each], width, seed=0).argsort() >= each).double()
    half = round(width / 2 * each)
    assert not new[: each - half - 1000].any()
    assert new[each + half + 1000 :].all()
    pieces = new[each - half : each + half].view(10, -1).mean(1)
    assert torch.allclose(pieces, (torch.arange(10, dtype=torch.float64) + 0.5) / 10, atol=0.02)


def test_tests_are_those_of_the_benchmark_and_no_task_is_told():
    _, whole = split(dict.fromkeys(range(4), 10), 2, task_labels=True)
    made = online(with_validation(whole, 0.2), 5, transition=0.5)
    assert told(made.test_stream) == told(whole.test_stream)
    assert [len(e.dataset) for e in made.valid_stream] == [4, 4]
    for stream in (made.train_stream, made.test_stream, made.valid_stream):
        assert {e.task_label for e in stream} == {0}
        for experience in stream:
            for _, _, task in data_loader(experience.dataset, 64, shuffle=False):
                assert set(task.tolist()) == {0}
    assert (made.name, made.n_classes, made.input_shape) == ("online toy", 4, (1,))
    assert online(whole, 5, name="mine").name == "mine"


@given(st.dictionaries(st.integers(0, 9), st.integers(2, 24), min_size=1, max_size=5), st.integers(1, 15))
def test_without_transition_a_milestone_is_where_the_last_sample_of_an_experience_arrives(counts, size):
    _, whole = split(counts, len(counts))
    made = online(whole, size)
    arrived = [{label for _, label in part} for part in told(made.train_stream)]
    last = [max(place for place, labels in enumerate(arrived) if label in labels) for label in sorted(counts)]
    assert made.test_stream.milestones == tuple(place + 1 for place in last)
    rows = [row for trained in range(len(arrived) + 1) for row in taught_after(made.test_stream, trained)]
    assert rows.pop(0) == -1
    assert rows == list(range(len(made.test_stream)))


@given(st.dictionaries(st.integers(0, 9), st.integers(2, 12), min_size=1, max_size=4), st.integers(1, 6))
def test_milestones_count_the_small_experiences_that_holding_out_leaves(counts, size):
    _, whole = split(counts, len(counts))
    before = online(whole, size, transition=0.5)
    after = with_validation(before, 0.5)
    kept = {pair for part in told(after.train_stream) for pair in part}
    left = [any(pair in kept for pair in part) for part in told(before.train_stream)]
    expected = tuple(max(1, sum(left[:end])) for end in before.test_stream.milestones)
    assert after.test_stream.milestones == after.valid_stream.milestones == expected
    assert expected[-1] == len(after.train_stream)


def test_with_a_transition_the_milestone_is_half_way_and_the_last_one_at_the_end():
    _, whole = split({0: 1000, 1: 1000, 2: 1000}, 3)
    milestones = online(whole, 10, transition=1.0).test_stream.milestones
    assert abs(milestones[0] - 100) <= 5
    assert abs(milestones[1] - 200) <= 5
    assert milestones[2] == 300


def test_a_stream_of_small_experiences_can_be_cut_again():
    _, whole = split({0: 10, 1: 10}, 2)
    again = online(online(whole, 2), 5)
    assert again.test_stream.milestones == (2, 4)


def test_validation_data_can_be_held_out_afterwards_too():
    samples, whole = split(dict.fromkeys(range(4), 10), 2)
    made = with_validation(online(whole, 3, transition=0.5), 0.2)
    assert [e.classes_in_this_experience for e in made.valid_stream] == [(0, 1), (2, 3)]
    assert Counter(y for part in told(made.valid_stream) for _, y in part) == dict.fromkeys(range(4), 2)
    everything = [pair for stream in (made.train_stream, made.valid_stream) for part in told(stream) for pair in part]
    assert sorted(everything) == list(enumerate(samples.targets.tolist()))


def test_samples_keep_the_view_of_the_domain_they_come_from():
    data = numbered({0: 20})
    wide = type(data)(torch.arange(60.0).view(20, 3), data.targets)
    whole = permuted("toy", wide, wide, 2, seed=3)
    views = [{tuple(x.tolist()) for x, *_ in experience.dataset} for experience in whole.train_stream]
    made = online(whole, 7, transition=1.0)
    rows = [tuple(x.tolist()) for e in made.train_stream for x in e_inputs(e)]
    assert sorted(rows) == sorted([*views[0], *views[1]])
    mixed = [e for e in made.train_stream if set(map(tuple, e_inputs(e).tolist())) & views[1] - views[0]]
    assert mixed


def e_inputs(experience):
    return torch.cat([x for x, *_ in data_loader(experience.dataset, 100, shuffle=False)])


def test_data_outside_memory_arrives_too():
    lazy = Lazy([0, 1, 0, 1])
    made = online(class_incremental("toy", lazy, lazy, 2), 2)
    assert [sorted(numbers(e.dataset)[0]) for e in made.train_stream] == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "samples=None and n_experiences=None: give one of the two"),
        ({"samples": 2, "n_experiences": 2}, "samples=2 and n_experiences=2: give one of the two"),
        ({"samples": 0}, "samples=0: expected at least 1"),
        ({"n_experiences": 0}, "n_experiences=0: expected 1 to 4"),
        ({"samples": 2, "transition": 1.1}, "transition=1.1: expected a width from 0 to 1"),
        ({"samples": 2, "transition": -1}, "transition=-1"),
    ],
)
def test_what_is_no_stream_is_refused(options, message):
    _, whole = split({0: 2, 1: 2}, 2)
    with pytest.raises(ValueError, match=message):
        online(whole, **options)
