"""Permuted streams, and streams of several datasets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rwalk.streams import Data, TensorData, dataset_incremental, domain_incremental, permuted
from streams.toys import numbered, told


def samples(classes, each=3, seed=0):
    """Inputs that are all different, so that a sample can be recognised."""
    targets = torch.tensor(list(classes) * each)
    x = torch.rand(len(targets), 2, 3, generator=torch.Generator().manual_seed(seed))
    return TensorData(x, targets)


def inputs(experience):
    return experience.dataset.batch(slice(None))[0]


def test_the_first_permutation_leaves_the_inputs_as_they_are():
    train, test = samples(range(3)), samples(range(3), seed=1)
    benchmark = permuted("toy", train, test, 3)
    assert torch.equal(inputs(benchmark.train_stream[0]), train.x)
    assert torch.equal(inputs(benchmark.test_stream[0]), test.x)


def test_a_permutation_is_one_for_all_samples_of_train_and_test():
    train = TensorData(torch.arange(600.0).view(2, 20, 15), torch.tensor([0, 1]))
    test = TensorData(train.x.flip(0) + 1000, torch.tensor([1, 0]))
    benchmark = permuted("toy", train, test, 3, seed=4)
    orders = []
    for index in (1, 2):
        found = inputs(benchmark.train_stream[index])
        order = found[0].flatten().long()  # the first sample counts its features
        assert sorted(order.tolist()) == list(range(300))
        assert torch.equal(found.flatten(1), train.x.flatten(1)[:, order])
        assert torch.equal(inputs(benchmark.test_stream[index]).flatten(1), test.x.flatten(1)[:, order])
        assert found.shape == train.x.shape
        orders.append(order)
    assert not torch.equal(orders[0], torch.arange(300))
    assert not torch.equal(orders[0], orders[1])
    again = permuted("toy", train, test, 2, seed=4)
    assert torch.equal(inputs(again.train_stream[1]), inputs(benchmark.train_stream[1]))
    other = permuted("toy", train, test, 2, seed=5)
    assert not torch.equal(inputs(other.train_stream[1]), inputs(benchmark.train_stream[1]))


def test_all_permutations_share_the_memory_of_the_data_and_keep_its_labels():
    train = samples(range(3))
    benchmark = permuted("toy", train, train, 4)
    for experience in [*benchmark.train_stream, *benchmark.test_stream]:
        assert experience.dataset.x.data_ptr() == train.x.data_ptr()
        assert torch.equal(experience.dataset.targets, train.targets)
    assert (benchmark.n_classes, benchmark.input_shape) == (3, (2, 3))


def test_a_transform_of_the_data_comes_before_the_permutation():
    plain = samples(range(3))
    negated = TensorData(plain.x, plain.targets, transform=torch.neg)
    found = inputs(permuted("toy", negated, negated, 2).train_stream[1])
    assert torch.equal(found, -inputs(permuted("toy", plain, plain, 2).train_stream[1]))


def test_no_permutation_at_all_is_refused():
    with pytest.raises(ValueError, match="n_experiences=0: expected at least 1"):
        permuted("toy", samples([0]), samples([0]), 0)


@given(st.integers(1, 6), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(0, 100))
def test_each_permutation_is_a_bijection_of_the_features(count, shape, seed):
    features = torch.arange(torch.Size(shape).numel()).float().view(1, *shape)
    data = TensorData(features, torch.tensor([0]))
    for experience in permuted("toy", data, data, count, seed=seed).train_stream:
        found = inputs(experience)
        assert found.shape == features.shape
        assert sorted(found.flatten().tolist()) == features.flatten().tolist()


def test_task_labels_number_the_domains():
    data = samples(range(2))
    made = [
        permuted("toy", data, data, 3, task_labels=True),
        domain_incremental("toy", [Data("a", data, data)] * 3, task_labels=True),
        dataset_incremental("toy", [Data("a", data, data)] * 3, task_labels=True),
    ]
    for benchmark in made:
        for stream in (benchmark.train_stream, benchmark.test_stream):
            assert [experience.task_label for experience in stream] == [0, 1, 2]
            assert [set(e.dataset.task_labels.tolist()) for e in stream] == [{0}, {1}, {2}]


def pair(name, counts, seed=0):
    return Data(name, numbered(counts, seed), numbered(dict.fromkeys(counts, 1), seed + 1))


def test_datasets_of_the_same_classes_arrive_one_after_the_other():
    parts = [pair("a", {0: 2, 4: 3}), pair("b", {0: 1, 4: 1}, seed=5)]
    benchmark = domain_incremental("toy", parts)
    assert told(benchmark.train_stream) == [list(enumerate(part.train.targets.tolist())) for part in parts]
    assert told(benchmark.test_stream) == [list(enumerate(part.test.targets.tolist())) for part in parts]
    assert [e.task_label for e in benchmark.train_stream] == [0, 0]
    assert (benchmark.n_classes, benchmark.input_shape) == (2, (1,))
    assert benchmark.train_stream[0].dataset.x.data_ptr() == parts[0].train.x.data_ptr()


def test_datasets_with_classes_of_their_own_are_numbered_on():
    parts = [pair("a", {0: 2, 1: 3}), pair("b", {0: 1, 1: 1, 2: 4}), pair("c", {0: 2})]
    benchmark = dataset_incremental("toy", parts)
    assert [e.classes_in_this_experience for e in benchmark.train_stream] == [(0, 1), (2, 3, 4), (5,)]
    assert [e.classes_in_this_experience for e in benchmark.test_stream] == [(0, 1), (2, 3, 4), (5,)]
    assert benchmark.n_classes == 6
    for data, offset, arrived in zip(parts, (0, 2, 5), told(benchmark.train_stream), strict=True):
        assert arrived == list(enumerate((data.train.targets + offset).tolist()))


def test_a_datasets_own_transform_stays():
    plain = samples(range(2))
    negated = TensorData(plain.x, plain.targets, transform=torch.neg)
    for make in (domain_incremental, dataset_incremental):
        assert torch.equal(inputs(make("toy", [Data("a", negated, negated)]).train_stream[0]), -plain.x)


def test_datasets_that_do_not_go_together_are_refused_by_name():
    two, three = pair("two", {0: 2, 1: 2}), pair("three", {0: 2, 1: 2, 2: 2})
    with pytest.raises(ValueError, match=r"toy: two and three have not the same classes \(2 is in one of them only\)"):
        domain_incremental("toy", [two, three])
    wide = samples(range(2))
    for make in (domain_incremental, dataset_incremental):
        with pytest.raises(ValueError, match=r"inputs of two have shape \(1,\), those of wide \(2, 3\)"):
            make("toy", [two, Data("wide", wide, wide)])
        with pytest.raises(ValueError, match="toy: expected at least one dataset"):
            make("toy", [])
    with pytest.raises(ValueError, match="the classes of odd are not numbered from 0 to 1"):
        dataset_incremental("toy", [pair("odd", {1: 2, 3: 2})])


def test_two_parts_that_do_not_fit_are_no_data():
    with pytest.raises(ValueError, match="class 1 of odd is missing from the test data"):
        Data("odd", numbered({0: 2, 1: 2}), numbered({0: 2}))
    with pytest.raises(ValueError, match="class 1 of odd is missing from the training data"):
        Data("odd", numbered({0: 2}), numbered({0: 2, 1: 2}))
    with pytest.raises(ValueError, match=r"inputs of odd have shape \(1,\) in training and \(2, 3\) in test data"):
        Data("odd", numbered({0: 2}), samples([0]))
