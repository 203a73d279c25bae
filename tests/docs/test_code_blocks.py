"""The code blocks of the documentation run, one after another, and do what the page says."""

import re
from pathlib import Path

import pytest
import torch

from contracts.doors_accelerate import accelerator_for
from contracts.doors_lightning import quiet
from docs.surroundings import PAGES, quiet_trainer

DOCS = Path(__file__).parents[2] / "docs" / "integrations"


def run(page: str, folder: Path) -> dict:
    namespace = PAGES[page](folder)
    accelerator_for("float32")  # forgets what other tests' accelerators were told
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    with quiet():
        for block in blocks:
            if page == "plain-pytorch":  # whose blocks are loops of their own
                namespace |= PAGES[page](folder)
            exec(compile(block, f"{page}.md", "exec"), namespace)
    return namespace


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.Trainer", quiet_trainer(tmp_path))
    namespace = run(page, tmp_path)
    if page == "plain-pytorch":
        assert [rwalk.tasks for rwalk in namespace["group"].rwalks.values()] == [1, 1]
    if page == "accelerate":
        assert (namespace["rwalk"].tasks, namespace["rwalk"].steps) == (1, 10)
        assert namespace["rwalk"].optimizer is namespace["optimizer"].optimizer
    if page == "task-free":
        assert namespace["rwalk"].tasks >= 2
    if page == "lightning":
        assert namespace["walk"].rwalk.tasks == 1
        assert namespace["walk"].rwalk.penalty() == 0  # at the best weights
        anchors = {name: value.clone() for name, value in namespace["module"].state_dict().items()}
        best = torch.load(namespace["best"].best_model_path)["state_dict"]
        assert all(torch.equal(anchors[name], value) for name, value in best.items())
