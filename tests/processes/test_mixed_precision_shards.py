"""FSDP2 that computes in bfloat16: RWalk's state stays in float32, and is that of the gradients the optimizer sees."""

import pytest
import torch

from processes import jobs
from reference.problems import assert_close

pytestmark = jobs.PATIENT


@pytest.fixture(scope="module", params=["two", "four"])
def found(request, tmp_path_factory):
    return getattr(jobs, request.param)(tmp_path_factory).found("mixed.bfloat16")


def test_state_is_kept_in_float32(found):
    for process in found:
        assert process["computed in"] == ["torch.bfloat16"]
        assert process["parameters"] == process["state"] == ["torch.float32"]


@pytest.mark.parametrize("kind", ["penalty", "fisher", "score"])
def test_importances_are_the_float64_twins(found, kind):
    for process in found:
        assert any(torch.tensor(values).any() for values in process["twin"][kind].values())
        assert_close(process["found"][kind], process["twin"][kind], 1e-5, kind)
