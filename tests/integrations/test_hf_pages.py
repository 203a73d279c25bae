"""The code of the pages on Trainer and PEFT runs, one block after another, and does what they say."""

import re
from pathlib import Path

import pytest
import torch

from integrations.trainers import arguments, classifier, labelled, language_model, sentences

PAGES = Path(__file__).parents[2] / "docs" / "integrations"


def run(page, names):
    blocks = re.findall(r"^```python\n(.*?)^```", (PAGES / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, f"{page}.md", "exec"), names)
    return names


def test_trainer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"model": classifier(), "args": arguments(tmp_path / "out")}
    names = run(
        "hf-trainer",
        given | {name: labelled(task) for task, name in enumerate(("first", "second"))} | {"third": labelled(0)},
    )
    assert (names["walk"].rwalk.tasks, names["walk"].rwalk.steps) == (
        3,
        16,
    )  # protected, trained, and trained on from the state


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_peft(tmp_path):
    def train(model, optimizer):
        for sample in sentences(0, samples=4):
            model(**{key: value[None] for key, value in sample.items()}).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    given = {"torch": torch, "folder": tmp_path, "build_base": language_model, "train": train}
    for task, name in enumerate(("old_batches", "more_batches")):
        given[name] = [{key: value[None] for key, value in sample.items()} for sample in sentences(task, samples=4)]
    names = run("peft", given)
    assert (names["rwalk"].tasks, names["rwalk"].steps) == (1, 8)
    assert names["rwalk"].penalty() > 0
    assert names["protection"].tasks == 2
    assert names["protection"].penalty() > 0
