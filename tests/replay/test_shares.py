"""How many remembered samples of each class a batch gets."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rwalk.replay import balanced_shares
from rwalk.replay.shares import BLOCK, InShares, systematic_counts

counts = st.dictionaries(st.integers(0, 9), st.integers(1, 200), min_size=1, max_size=8)


@given(arriving=counts, kept=st.dictionaries(st.integers(0, 9), st.integers(0, 30)), size=st.integers(1, 64))
def test_every_remembered_class_is_brought_to_what_a_new_one_has_on_average(arriving, kept, size):
    shares = balanced_shares(arriving, kept, size)
    average, whole = size / len(arriving), sum(arriving.values())
    for label in range(10):
        of_new = size * arriving.get(label, 0) / whole
        share = shares.get(label, 0.0)
        assert share >= 0.0
        if kept.get(label):
            assert of_new + share == pytest.approx(max(average, of_new))
        else:
            assert share == 0.0  # nothing of it can be drawn
    assert all(share > 0 for share in shares.values())


@given(
    shares=st.lists(st.floats(0, 20), min_size=1, max_size=12),
    begin=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=5),
)
def test_counts_are_off_their_shares_by_less_than_one_and_so_is_their_sum(shares, begin):
    shares, begin = torch.tensor(shares, dtype=torch.float64), torch.tensor(begin, dtype=torch.float64)
    found = systematic_counts(shares, begin)
    assert found.shape == (len(begin), len(shares))
    assert bool((found >= 0).all())
    assert float((found - shares).abs().max()) < 1 + 1e-9
    assert float((found.sum(dim=1) - shares.sum()).abs().max()) < 1 + 1e-9


def test_over_all_beginnings_counts_are_the_shares():
    shares = torch.tensor([0.3, 1.25, 4.0, 0.0, 2.7], dtype=torch.float64)
    begin = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    torch.testing.assert_close(systematic_counts(shares, begin).double().mean(dim=0), shares, rtol=0, atol=2e-3)


def test_positions_are_drawn_class_by_class_in_each_batch():
    asked = []

    def numbers(start):
        def take(count):
            asked.append(count)
            return torch.arange(start, start + count)

        return take

    torch.manual_seed(0)
    draw = InShares([numbers(0), numbers(1000)], [3.0, 0.5])
    batches = [draw() for _ in range(2 * BLOCK)]
    assert [int((batch < 1000).sum()) for batch in batches] == [3] * 2 * BLOCK
    assert {int((batch >= 1000).sum()) for batch in batches} == {0, 1}
    assert torch.cat(batches[:BLOCK]).sort().values.tolist() == [*range(asked[0]), *range(1000, 1000 + asked[1])]
