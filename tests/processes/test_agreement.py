"""Every way of training, in every engine, ends where one process with the whole batch ends."""

from functools import cache

import pytest

from processes import jobs
from processes.cases import CASES, ONCE, SUMS, TOLERANCE, TOLERANCES
from processes.problem import STEPS, Run, distance, two_tasks

pytestmark = jobs.PATIENT


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return jobs.two(tmp_path_factory)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return jobs.four(tmp_path_factory)


@cache
def alone(name):
    return two_tasks(CASES[name])


def check(found, name):
    tolerance = TOLERANCES.get(name, TOLERANCE)
    for process, results in enumerate(found):
        distances = distance(results[name], alone(name))
        assert all(value <= tolerance for value in distances.values()), (process, distances)


@pytest.mark.parametrize("name", CASES)
def test_ddp_in_two_processes(two, name):
    check(two.found("agreeing.ddp"), name)


@pytest.mark.parametrize("name", CASES)
def test_fsdp_in_two_processes(two, name):
    check(two.found("agreeing.fsdp"), name)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ONCE])
def test_fsdp_in_four_processes_with_uneven_and_empty_shards(four, name):
    check(four.found("agreeing.fsdp"), name)


@pytest.mark.parametrize("name", SUMS)
def test_whole_parameters_beside_sharded_ones(two, name):
    check(two.found("agreeing.partly_sharded"), name)


@pytest.mark.parametrize("name", SUMS)
def test_shards_of_columns(two, name):
    check(two.found("agreeing.by_columns"), name)


@pytest.mark.parametrize("name", SUMS)
def test_an_optimizer_with_sharded_state_under_ddp(two, name):
    check(two.found("agreeing.zero"), name)


@pytest.mark.parametrize("name", SUMS)
def test_shards_that_two_processes_hold(four, name):
    check(four.found("agreeing.hsdp"), name)


@pytest.mark.parametrize("name", SUMS)
def test_layers_sharded_over_different_numbers_of_processes(four, name):
    check(four.found("agreeing.two_meshes"), name)


@pytest.mark.parametrize("name", SUMS)
def test_fsdp_over_tensor_parallelism(four, name):
    check(four.found("agreeing.tensor_parallel"), name)


@pytest.mark.parametrize("name", sorted(set(CASES) - {"paper", "eager", "float32", "avalanche"}))
def test_a_case_is_a_case_of_its_own(name):
    expected, found = alone("paper"), alone(name)
    assert set(found) != set(expected) or max(distance(found, expected).values()) > 1e-3


def test_the_overflow_skips_a_step():
    run = Run(CASES["loss scaling"])
    run.train(0)
    assert run.rwalk.steps == STEPS - 1
