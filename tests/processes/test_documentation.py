"""The documentation's code runs in two processes, one block after another."""

from processes import jobs
from reference.problems import assert_same

pytestmark = jobs.PATIENT


def test_a_pages_blocks_do_what_it_says(tmp_path_factory):
    for ddp, fsdp, *later in jobs.two(tmp_path_factory).found("documented.page"):
        assert (ddp["tasks"], ddp["steps"]) == (fsdp["tasks"], fsdp["steps"]) == (1, 4)
        assert any(value.any() for value in fsdp["importances"].values())
        assert len(later) == 2
        for loaded in later:
            assert (loaded["tasks"], loaded["steps"]) == (1, 4)
            assert_same(loaded["importances"], fsdp["importances"])
