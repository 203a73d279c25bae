"""Turns of variants, and figures that a drifting machine does not bend."""

import gc
import itertools

import pytest
from benchmarks.timing import Rounds, interleave, summarize, visit


@pytest.fixture(autouse=True)
def _no_collections(monkeypatch):
    """Each takes a tenth of a second with torch loaded."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


def drifting(*costs):
    """Variants of fixed costs on a machine that slows down with every turn; and which of them had their turn when."""
    clock, order = itertools.count(1), []

    def turn(name, cost):
        order.append(name)
        return cost * 1.05 ** next(clock)

    return {f"v{cost}": lambda cost=cost: turn(f"v{cost}", cost) for cost in costs}, order


def test_a_ratio_formed_within_rounds_hardly_sees_drift_that_ruins_the_medians():
    variants, _ = drifting(1.0, 3.0)
    rounds = interleave(variants, budget=0.0, at_least=12)
    paired = rounds.summary(lambda seconds: seconds["v3.0"] / seconds["v1.0"]).median
    assert paired == pytest.approx(3.0, rel=0.06)
    early, late = rounds[0]["v1.0"], rounds[-1]["v1.0"]
    assert late > 2 * early


def test_each_round_has_every_variant_once_in_orders_that_differ():
    variants, order = drifting(1.0, 2.0, 3.0)
    rounds = interleave(variants, budget=0.0, at_least=6)
    assert len(rounds) == 6
    in_rounds = [tuple(order[start : start + 3]) for start in range(0, len(order), 3)]
    assert all(sorted(names) == ["v1.0", "v2.0", "v3.0"] for names in in_rounds)
    assert len(set(in_rounds)) > 1
    assert list(rounds[0]) == ["v1.0", "v2.0", "v3.0"]


def test_the_first_round_only_warms_up():
    values = iter([100.0, 1.0, 2.0, 3.0])
    rounds = interleave({"a": lambda: next(values)}, budget=0.0, at_least=3)
    assert [seconds["a"] for seconds in rounds] == [1.0, 2.0, 3.0]


def test_several_turns_of_a_round_alternate_and_are_averaged():
    variants, order = drifting(1.0, 2.0)
    values = iter([1.0, 2.0, 3.0, 6.0])
    rounds = interleave({"a": lambda: next(values)}, budget=0.0, at_least=1, warm_up=False, turns=4)
    assert rounds == [{"a": 3.0}]
    interleave(variants, budget=0.0, at_least=1, warm_up=False, turns=10)
    assert [sorted(order[start : start + 2]) for start in range(0, 20, 2)] == [["v1.0", "v2.0"]] * 10
    assert len(order) == 20


def test_warming_up_can_be_left_out():
    values = iter([1.0, 2.0])
    rounds = interleave({"a": lambda: next(values)}, budget=0.0, at_least=2, warm_up=False)
    assert [seconds["a"] for seconds in rounds] == [1.0, 2.0]


def test_rounds_end_when_there_are_enough_of_them_even_if_there_is_time():
    assert len(interleave({"a": lambda: 1.0}, budget=1e9, at_most=4)) == 4


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_between_turns_only_and_the_collector_is_left_as_it_was(collects):
    seen = []
    (gc.enable if collects else gc.disable)()
    try:
        interleave({"a": lambda: float(seen.append(gc.isenabled()) is None)}, budget=0.0)
        assert not any(seen)
        assert gc.isenabled() is collects
    finally:
        gc.enable()


def test_the_collector_is_put_back_after_an_error():
    def fails():
        raise RuntimeError("no figure")

    with pytest.raises(RuntimeError, match="no figure"):
        interleave({"a": fails}, budget=0.0)
    assert gc.isenabled()


def test_a_turn_does_its_lead_in_and_then_the_steps():
    done = []
    assert visit(done.append, 10, lead_in=2)() >= 0.0
    assert done == [2, 10]


def test_quartiles():
    found = summarize([1.0, 2.0, 3.0, 4.0])
    assert (found.q1, found.median, found.q3, found.count) == (1.75, 2.5, 3.25, 4)
    assert summarize([5.0]).q3 == 5.0
    with pytest.raises(ValueError, match="no measurements"):
        Rounds().summary(lambda seconds: seconds["a"])
