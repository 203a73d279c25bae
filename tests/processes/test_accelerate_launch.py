"""``accelerate launch`` in two processes: state saved by the accelerator goes on, and is that of one process."""

import pytest
import torch

from processes import accelerated
from processes.launching import ACCELERATE, run
from processes.problem import STEPS, Run
from reference.problems import assert_same, assert_same_state


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accelerated")
    done = run(*ACCELERATE, accelerated.__file__, folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"found-{process}.pt") for process in range(2)]


def test_two_processes_ran_ddp(found):
    for process in found:
        assert (process["processes"], process["wrapper"]) == (2, "DistributedDataParallel")


def test_going_on_from_the_checkpoint_is_going_on_without_a_break(found):
    for process in found:
        straight, resumed = process["without a break"], process["from the checkpoint"]
        assert_same_state(resumed["state"], straight["state"])
        assert_same(resumed["weights"], straight["weights"])
        assert resumed["penalty"] == straight["penalty"] > 0


def test_both_processes_hold_the_same(found):
    first, second = (process["from the checkpoint"] for process in found)
    assert_same_state(first["state"], second["state"])
    assert_same(first["weights"], second["weights"])


def test_one_process_with_the_whole_batch_learns_the_same(found):
    alone = Run(accelerated.CASE)
    for task in range(2):
        alone.train(task)
        alone.rwalk.consolidate()
    alone.train(2, stop=2)
    process = found[0]["from the checkpoint"]
    assert process["state"]["steps"] == alone.rwalk.steps == 2 * STEPS + 2
    for name, values in alone.rwalk.state_dict()["parameters"].items():
        torch.testing.assert_close(process["weights"][name], alone.model.get_parameter(name).detach())
        torch.testing.assert_close(process["state"]["parameters"][name]["importance"], values["importance"])
