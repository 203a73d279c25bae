"""Streams with blurred class boundaries."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwalk.streams import blurry, class_incremental, with_validation
from streams.toys import numbered, told

COUNTS = st.dictionaries(st.integers(0, 9), st.integers(6, 30), min_size=1, max_size=6)  # enough for all experiences


@given(COUNTS, st.floats(0, 0.99), st.data())
def test_each_class_is_dealt_out_by_its_share_and_evenly(counts, blur, data):
    n_experiences = data.draw(st.integers(1, len(counts)))
    seed = data.draw(st.integers(0, 4))
    samples = numbered(counts)
    made = blurry("toy", samples, samples, n_experiences, blur=blur, seed=seed)
    arrived = told(made.train_stream)
    assert sorted(pair for part in arrived for pair in part) == list(enumerate(samples.targets.tolist()))
    for index, tested in enumerate(made.test_stream):
        for label in tested.classes_in_this_experience:
            shares = [Counter(y for _, y in part)[label] for part in arrived]
            elsewhere = [share for other, share in enumerate(shares) if other != index]
            assert sum(shares) == counts[label]
            if elsewhere:
                assert abs(sum(elsewhere) - blur * counts[label]) <= 0.5
                assert max(elsewhere) - min(elsewhere) <= 1


@given(COUNTS, st.integers(0, 3))
def test_without_blur_it_is_the_split_stream(counts, seed):
    samples = numbered(counts)
    sharp = blurry("toy", samples, samples, len(counts), blur=0.0, seed=seed)
    split = class_incremental("toy", samples, samples, len(counts), seed=seed)
    assert told(sharp.train_stream) == told(split.train_stream)
    assert told(sharp.test_stream) == told(split.test_stream)


def test_test_experiences_hold_the_major_classes_only_and_no_task_is_told():
    samples = numbered(dict.fromkeys(range(6), 20))
    made = blurry("toy", samples, samples, sizes=[2, 1, 3], class_order=[5, 0, 3, 1, 2, 4], blur=0.3, seed=7)
    assert [e.classes_in_this_experience for e in made.test_stream] == [(0, 5), (3,), (1, 2, 4)]
    assert [len(e.dataset) for e in made.test_stream] == [40, 20, 60]
    assert [e.classes_in_this_experience for e in made.train_stream] == [tuple(range(6))] * 3
    assert {e.task_label for stream in (made.train_stream, made.test_stream) for e in stream} == {0}


def test_disjoint_classes_arrive_in_their_own_experience_only():
    samples = numbered(dict.fromkeys(range(10), 20))
    for seed in range(3):
        made = blurry("toy", samples, samples, 5, blur=0.5, disjoint=0.3, seed=seed)
        seen = Counter(label for e in made.train_stream for label in e.classes_in_this_experience)
        assert sorted(seen.values()) == [1] * 3 + [5] * 7
    everything = blurry("toy", samples, samples, 5, blur=0.5, disjoint=1.0)
    assert told(everything.train_stream) == told(class_incremental("toy", samples, samples, 5).train_stream)


def test_the_seed_draws_which_samples_arrive_where():
    samples = numbered({0: 30, 1: 30})
    order = [0, 1]
    draws = [
        told(blurry("toy", samples, samples, 2, class_order=order, seed=seed).train_stream) for seed in (0, 0, 1, None)
    ]
    assert draws[0] == draws[1] == draws[3]
    assert draws[0] != draws[2]


def test_the_odd_sample_goes_to_an_experience_that_is_drawn():
    samples = numbered({0: 1, 1: 10, 2: 10, 3: 10, 4: 10})
    receivers = set()
    for seed in range(30):
        made = blurry("toy", samples, samples, 5, blur=0.1, class_order=[1, 0, 2, 3, 4], seed=seed)
        receivers |= {i for i, part in enumerate(told(made.train_stream)) if any(y == 1 for _, y in part)} - {0}
    assert receivers == {1, 2, 3, 4}


def test_validation_data_is_arranged_as_the_test_data():
    samples = numbered(dict.fromkeys(range(4), 20))
    made = with_validation(blurry("toy", samples, samples, 2, blur=0.2), 0.25)
    assert [e.classes_in_this_experience for e in made.valid_stream] == [(0, 1), (2, 3)]
    assert [Counter(y for _, y in part) for part in told(made.valid_stream)] == [{0: 5, 1: 5}, {2: 5, 3: 5}]
    kept = [pair for part in told(made.train_stream) for pair in part]
    held = [pair for part in told(made.valid_stream) for pair in part]
    assert sorted(kept + held) == list(enumerate(samples.targets.tolist()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blur": 1.0}, "blur=1.0: expected a share from 0 to below 1"),
        ({"blur": -0.1}, "blur=-0.1"),
        ({"disjoint": 1.5}, "disjoint=1.5: expected a share of the classes"),
        ({"n_experiences": 3}, "n_experiences=3: toy has 2 classes"),
    ],
)
def test_shares_that_are_none_are_refused(options, message):
    samples = numbered({0: 2, 1: 2})
    with pytest.raises(ValueError, match=message):
        blurry("toy", samples, samples, **{"n_experiences": 2, **options})


def test_an_experience_that_is_left_without_samples_is_named():
    samples = numbered({0: 1, 1: 1})  # the one sample of the class that is not disjoint arrives elsewhere
    with pytest.raises(ValueError, match=r"experience [01] of toy is left without samples: lower blur=0.9"):
        blurry("toy", samples, samples, 2, blur=0.9, disjoint=0.5)
