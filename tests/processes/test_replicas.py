"""DistributedDataParallel: every process has the same state, the first one writes files."""

import pytest
import torch

from processes import jobs, replicas
from processes.problem import distance
from reference.problems import assert_same, assert_same_state

pytestmark = jobs.PATIENT


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return jobs.two(tmp_path_factory)


@pytest.mark.parametrize("name", replicas.KINDS)
def test_states_and_weights_are_the_same_bit_for_bit(two, name):
    first, second = (found[name] for found in two.found("replicas.states"))
    assert_same_state(first[0], second[0])
    assert_same(first[1], second[1])
    assert first[2] == second[2] > 0
    assert any(values["importance"].any() for values in first[0]["parameters"].values())


def test_rwalk_may_be_made_before_the_model_is_wrapped(two):
    for early, late in zip(two.found("replicas.made_before_wrapping"), two.found("replicas.states"), strict=True):
        assert_same_state(early[0], late["as published"][0])
        assert_same(early[1], late["as published"][1])


def test_only_the_first_process_writes_and_none_has_to_wait_for_it(two):
    for found in two.found("replicas.files"):
        assert found == ["by-0", "by-the-first-alone"]


@pytest.mark.parametrize(("given", "pieces"), [("shares", 2), ("everything", 1)])
def test_a_fisher_from_a_loader_counts_all_data(two, given, pieces):
    alone = replicas.alone_from_a_loader(pieces)
    for found in two.found("replicas.from_a_loader"):
        assert max(distance(found[given], alone).values()) <= 1e-9


def test_a_process_may_have_no_data_for_the_fisher(two):
    first, second = two.found("replicas.an_empty_share")
    assert_same(first, second)
    assert torch.cat([value.flatten() for value in first.values()]).count_nonzero() == 28
