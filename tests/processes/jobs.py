"""The jobs that tests look at."""

import pytest

from processes import moving
from processes.launching import Job, shared_folder
from rwalk.core.sharding import RELEASE, SHARDS_SINCE

#: For tests that launch them: longer than both may take.
PATIENT = pytest.mark.timeout(600)

SHARDS = RELEASE >= SHARDS_SINCE  # elsewhere RWalk refuses them
NO_SHARDS = f"sharded parameters need torch ≥ {'.'.join(map(str, SHARDS_SINCE))}"
REPLICAS = (
    "agreeing.ddp",
    "agreeing.zero",
    "replicas.states",
    "replicas.made_before_wrapping",
    "replicas.files",
    "replicas.from_a_loader",
    "replicas.an_empty_share",
)
TWO = (
    *REPLICAS,
    "agreeing.fsdp",
    "agreeing.partly_sharded",
    "agreeing.by_columns",
    "mixed.bfloat16",
    "moving.of_one",
    "moving.of_four",
    "refusing.not_finite",
    "refusing.wrapped_too_late",
    "refusing.another_layout",
    "refusing.other_gradients",
    "refusing.from_a_loader",
    "refusing.after_evaluations",
    "refusing.shards_put_in",
    "refusing.parameters_let_go",
    "refusing.read_into_nothing",
    "documented.page",
)
FOUR = (
    "agreeing.fsdp",
    "agreeing.hsdp",
    "agreeing.tensor_parallel",
    "agreeing.two_meshes",
    "mixed.bfloat16",
    "moving.sharded",
    "moving.of_one",
)


def four(factory: pytest.TempPathFactory) -> Job:
    """Four processes; first, one saves the states that they load."""
    if not SHARDS:
        pytest.skip(NO_SHARDS)
    return Job(factory, 4, *FOUR, first=lambda: moving.save_alone(shared_folder(factory, "of-one")))


def two(factory: pytest.TempPathFactory) -> Job:
    """Two processes, after the four whose states they load."""
    if not SHARDS:
        return Job(factory, 2, *REPLICAS, first=lambda: None)
    return Job(factory, 2, *TWO, first=lambda: four(factory))


def profiled(factory: pytest.TempPathFactory) -> Job:
    """Two processes that torch's profiler watches: what it does to memory, it does to no other test."""
    scenarios = ("traffic.ddp", "traffic.fsdp")[: 2 if SHARDS else 1]
    return Job(factory, 2, *scenarios, first=lambda: None, name="profiled")
