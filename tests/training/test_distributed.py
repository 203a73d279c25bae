"""The template in two processes, through Accelerate."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reference.problems import assert_same
from rwalk.training import WeightAveragePlugin
from training import distributed_worker

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two processes ended with."""
    folder = tmp_path_factory.mktemp("ranks")
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--local-addr=127.0.0.1"]
    command = [sys.executable, "-m", *launch, distributed_worker.__file__, str(folder)]
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    """The same training in one process, with batches twice the size."""
    return distributed_worker.train(8)


def test_both_processes_hold_the_same_weights_and_importances(ranks):
    first, second = ranks
    assert first["processes"] == second["processes"] == 2
    assert first["steps"] == second["steps"] == 8
    assert_same(first["weights"], second["weights"])
    for kind, values in first["importances"].items():
        assert_same(values, second["importances"][kind])
        assert any(value.any() for value in values.values())


def test_two_processes_learn_what_one_with_batches_twice_the_size_learns(ranks, alone):
    for name, value in alone["weights"].items():
        torch.testing.assert_close(ranks[0]["weights"][name], value, rtol=0, atol=1e-5)
    assert ranks[0]["steps"] == alone["steps"]
    for name, value in alone["importances"]["penalty"].items():
        torch.testing.assert_close(ranks[0]["importances"]["penalty"][name], value, rtol=0, atol=1e-3)


def test_experiences_end_at_the_same_average_in_all_processes_as_in_one(ranks, alone):
    averaged = distributed_worker.train(8, None, WeightAveragePlugin(1))["weights"]
    assert_same(ranks[0]["averaged"], ranks[1]["averaged"])
    for name, value in averaged.items():
        torch.testing.assert_close(ranks[0]["averaged"][name], value, rtol=0, atol=1e-5)
        assert (value - alone["weights"][name]).abs().max() > 1e-3


def test_names_of_importances_do_not_show_the_wrapper(ranks, alone):
    assert set(ranks[0]["importances"]["penalty"]) == set(alone["importances"]["penalty"])


def test_accuracy_is_that_of_all_samples_each_counted_once(ranks, alone):
    assert alone["evaluated"] == sum(distributed_worker.TEST_SIZES)
    for rank in ranks:
        assert rank["evaluated"] == alone["evaluated"]
        assert rank["matrix"] == alone["matrix"]
        accuracies = {name: value for name, value in rank["metrics"].items() if name.startswith("Top1")}
        assert accuracies
        assert accuracies == {name: value for name, value in alone["metrics"].items() if name in accuracies}
