"""One of two processes is killed in mid-training: the job fails, and its last checkpoint goes on."""

import pytest
import torch

from processes import interrupted
from processes.jobs import NO_SHARDS, SHARDS
from processes.launching import torchrun
from processes.problem import STEPS, distance, two_tasks

KILLED_AT = STEPS + 2  # in the second task's first window; the last checkpoint is one step old


@pytest.mark.skipif(not SHARDS, reason=NO_SHARDS)
@pytest.mark.timeout(200)
def test_a_killed_job_ends_and_its_last_checkpoint_goes_on(tmp_path):
    killed = torchrun(2, interrupted.__file__, tmp_path, str(KILLED_AT), timeout=90)
    assert killed.returncode != 0
    assert "SIGKILL" in killed.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ddp.pt", "fsdp.pt"]

    resumed = torchrun(2, interrupted.__file__, tmp_path, timeout=90)
    assert resumed.returncode == 0, resumed.stderr
    expected = two_tasks(interrupted.CASE)
    for process in range(2):
        found = torch.load(tmp_path / f"found-{process}.pt")
        assert found["starts"] == {"ddp": KILLED_AT - 1, "fsdp": KILLED_AT - 1}
        for engine in ("ddp", "fsdp"):
            assert max(distance(found[engine], expected).values()) <= 1e-9
