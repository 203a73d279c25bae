"""Balanced replay: as many of each old class as of a new one."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rwalk.streams import Stream, TensorData, data_loader
from rwalk.training import ReplayPlugin


def part(sizes):
    labels = torch.cat([torch.full((count,), label) for label, count in sizes.items()])
    return TensorData(torch.randn(len(labels), 4), labels)


def means(first, second, *, passes=25, size=20, **budget):
    """Samples of each class in a batch of the second experience, on average, and the sizes of these batches."""
    torch.manual_seed(0)
    plugin, stream = ReplayPlugin(batch_size_mem="balanced", **budget), Stream("train", [part(first), part(second)])
    plugin.memory.update(stream[0].dataset, stream[0].dataset.targets)
    new = data_loader(stream[1].dataset, size, shuffle=True)
    strategy = SimpleNamespace(train_mb_size=size, experience=stream[1], dataloader=new)
    plugin.before_training_exp(strategy)
    batches = [y for _ in range(passes) for _, y, _ in strategy.dataloader]
    seen = Counter(torch.cat(batches).tolist())
    return {label: seen[label] / len(batches) for label in sorted(seen)}, {len(labels) for labels in batches}


@pytest.mark.parametrize(
    ("first", "second", "budget"),
    [
        ({0: 100, 1: 2}, {2: 100, 3: 100}, {"per_class": 10}),  # an old class with few exemplars
        ({0: 100, 1: 100, 4: 100}, {0: 100, 3: 100}, {"per_class": 10}),  # a class that comes again
        ({0: 100, 1: 2}, {2: 100, 3: 100}, {"mem_size": 102, "sampler": "reservoir"}),  # exemplars as rare as samples
    ],
)
def test_an_old_class_gets_as_many_as_a_new_one_has(first, second, budget):
    found, sizes = means(first, second, **budget)
    assert found == pytest.approx(dict.fromkeys(sorted({**first, **second}), 10.0))
    assert len(sizes) == 1


def test_a_class_that_comes_again_rarely_is_filled_up_with_its_exemplars():
    found, _ = means({0: 100, 1: 100}, {0: 10, 2: 190}, per_class=10)
    assert found == pytest.approx({0: 10.0, 1: 10.0, 2: 19.0}, abs=0.1)


def test_shares_below_one_are_kept_on_average():
    found, sizes = means(dict.fromkeys(range(6), 20), {6: 40, 7: 40}, size=1, passes=40, per_class=2)
    assert found == pytest.approx({**dict.fromkeys(range(6), 0.5), 6: 0.5, 7: 0.5}, abs=0.03)
    assert sizes == {4}


def test_a_budget_below_the_number_of_classes_balances_the_classes_that_it_holds():
    found, _ = means(dict.fromkeys(range(5), 30), {6: 40, 7: 40}, mem_size=3)
    assert found == pytest.approx({0: 10.0, 1: 10.0, 2: 10.0, 6: 10.0, 7: 10.0})


@settings(max_examples=30, deadline=None)
@given(
    old=st.dictionaries(st.integers(0, 5), st.integers(1, 40), min_size=1),
    new=st.dictionaries(st.integers(0, 7), st.integers(1, 40), min_size=1, max_size=4),
    total=st.integers(1, 12),
)
def test_whatever_arrives_each_old_class_has_its_share(old, new, total):
    length = -(-sum(new.values()) // 4)  # the last batch of a pass may be small
    found, _ = means(old, new, passes=-(-300 // length), size=4, mem_size=total)
    remembered = sorted(old)[:total]
    for label in remembered:
        average, mine = 4 / len(new), 4 * new.get(label, 0) / sum(new.values())
        of_new = new.get(label, 0) / length
        assert found.get(label, 0.0) == pytest.approx(of_new + max(0.0, average - mine), abs=0.1)
    for label in set(new) - set(remembered):
        assert found[label] == pytest.approx(new[label] / length)
    assert set(found) == {*remembered, *new}
