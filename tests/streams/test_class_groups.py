"""How classes are dealt out to experiences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rwalk.streams import class_incremental
from rwalk.streams.class_incremental import class_groups
from streams.toys import numbered, told


@given(st.data())
def test_every_sample_appears_once_with_its_label_whatever_the_groups(data):
    counts = data.draw(st.dictionaries(st.integers(0, 20), st.integers(1, 4), min_size=1, max_size=7))
    cuts = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=7))
    sizes = data.draw(st.permutations([len(counts) - 1, 1])) if len(counts) > 1 else [1]
    options = data.draw(st.sampled_from([{"sizes": sizes}, {"n_experiences": min(len(cuts), len(counts))}]))
    order = data.draw(st.one_of(st.none(), st.permutations(sorted(counts))))
    seed = data.draw(st.one_of(st.none(), st.integers(0, 5)))
    samples = numbered(counts)
    made = class_incremental("toy", samples, samples, class_order=order, seed=seed, **options)
    for stream in (made.train_stream, made.test_stream):
        arrived = told(stream)
        assert sorted(pair for part in arrived for pair in part) == list(enumerate(samples.targets.tolist()))
        for experience, part in zip(stream, arrived, strict=True):
            assert {label for _, label in part} == set(experience.classes_in_this_experience)
    assert sum(len(e.classes_in_this_experience) for e in made.train_stream) == len(counts) == made.n_classes


@given(st.integers(1, 40), st.data())
def test_groups_differ_by_one_class_at_most_larger_ones_first(count, data):
    n_experiences = data.draw(st.integers(1, count))
    groups = class_groups("toy", range(count), n_experiences)
    sizes = [len(group) for group in groups]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1
    assert [label for group in groups for label in group] == list(range(count))


def test_uneven_groups_follow_sizes_and_order():
    assert class_groups("toy", range(10), sizes=[4, 2, 4]) == [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9]]
    assert class_groups("toy", [3, 5, 8], sizes=[1, 2], class_order=[8, 3, 5]) == [[8], [3, 5]]
    assert class_groups("toy", [3, 5, 8], 2, sizes=[1, 2]) == [[3], [5, 8]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": [4, 2]}, r"sizes=\[4, 2\] add up to 6: toy has 10 classes"),
        ({"sizes": [5, 6]}, r"sizes=\[5, 6\] add up to 11: toy has 10 classes"),
        ({"sizes": [10, 0]}, r"sizes=\[10, 0\]: expected the number of classes of each experience, at least 1"),
        ({"sizes": [11, -1]}, r"sizes=\[11, -1\]: expected the number of classes"),
        ({"sizes": []}, r"sizes=\[\]: expected the number of classes"),
        ({"sizes": [5, 5], "n_experiences": 3}, r"n_experiences=3 and sizes=\[5, 5\]: give one of the two"),
        ({"n_experiences": 11}, "n_experiences=11: toy has 10 classes, expected 1 to that many"),
        ({"n_experiences": 0}, "n_experiences=0: toy has 10 classes"),
        ({}, "toy: give n_experiences or sizes"),
        ({"n_experiences": 2, "class_order": [1, 0]}, r"class_order=\[1, 0\]: expected each of the classes"),
    ],
)
def test_what_does_not_add_up_is_refused_with_the_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        class_groups("toy", range(10), **options)
