"""What RWalk sends from process to process: nothing under DDP; under FSDP2, what the documentation says."""

import pytest

from processes import jobs
from processes.moving import CASES
from processes.problem import network

pytestmark = jobs.PATIENT

FLAG, PAIR = "gloo:all_reduce [[]]", "gloo:all_reduce [[2]]"


def extra(found, without):
    """What is sent beyond something else."""
    added = {name: times - without.get(name, 0) for name, times in found.items()}
    return {name: times for name, times in added.items() if times}


@pytest.fixture(scope="module")
def traffic(tmp_path_factory):
    return jobs.profiled(tmp_path_factory)


def test_nothing_is_sent_under_ddp(traffic):
    for found in traffic.found("traffic.ddp"):
        assert found["without"]  # the gradients
        assert found["with"] == found["without"]


def test_a_step_sends_one_flag_under_fsdp(traffic):
    for found in traffic.found("traffic.fsdp"):
        assert found["steps without"]
        assert extra(found["steps"], found["steps without"]) == {FLAG: 4}  # whether it counts


def test_a_tasks_end_sends_two_flags_and_two_numbers_for_each_term(traffic):
    """Whether all is finite, before anything is changed and once the open window is scored."""
    for found in traffic.found("traffic.fsdp"):
        assert found["consolidate"] == {FLAG: 2, PAIR: 2}


def test_relative_damping_sends_two_numbers_a_window(traffic):
    for found in traffic.found("traffic.fsdp"):
        assert extra(found["steps, relative"], found["steps"]) == {PAIR: 1}


def test_the_penalty_is_one_sum(traffic):
    for found in traffic.found("traffic.fsdp"):
        assert found["penalty"] == {FLAG: 1}


def test_saving_gathers_each_quantity_once_and_loading_sends_nothing(traffic):
    case = CASES["paper"]
    parameters = len(list(network(case.sizes, case.dtype).parameters()))
    quantities = ("fisher", "score", "loss_change", "window_start", "importance", "anchor")
    for found in traffic.found("traffic.fsdp"):
        assert all(name.startswith("gloo:all_gather") for name in found["save"])
        assert sum(found["save"].values()) == len(quantities) * parameters
        assert found["load"] == {}
