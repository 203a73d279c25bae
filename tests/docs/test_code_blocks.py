"""The code blocks of the documentation run, one after another, and do what the page says."""

import pytest
import torch

from contracts.doors_accelerate import accelerator_for
from contracts.doors_lightning import quiet
from docs.blocks import ROOT, blocks_of, pages, run
from docs.surroundings import FRESH, PAGES, quiet_trainer

#: Pages whose blocks are run where there is more to look at.
ELSEWHERE = {
    "docs/experiments.md": "tests/docs/test_experiments_page.py",
    "docs/integrations/distributed.md": "tests/processes/documented.py",
    "docs/integrations/hf-trainer.md": "tests/integrations/test_hf_pages.py",
    "docs/integrations/peft.md": "tests/integrations/test_hf_pages.py",
    "docs/models.md": "tests/models/test_docs.py",
    "docs/replay.md": "tests/replay/test_docs.py",
    "docs/scenarios.md": "tests/streams/test_docs.py",
    "docs/sweeps.md": "tests/docs/test_sweeps_page.py",
}


def run_page(page, folder):
    names = PAGES[page](folder)
    accelerator_for("float32")  # forgets what other tests' accelerators were told
    with quiet():
        for number, block in enumerate(blocks_of(page)):
            if block.mark == "not run":
                continue
            if number in FRESH.get(page, ()):  # another process, or a loop of its own
                names |= PAGES[page](folder)
            run(page, block, names)
    return names


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_code_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lightning.pytorch.Trainer", quiet_trainer(tmp_path))
    monkeypatch.chdir(tmp_path)
    names = run_page(page, tmp_path)
    CHECKS[page](names, capsys.readouterr().out)


def test_every_page_with_code_is_run():
    with_code = {page for page in pages() if blocks_of(page)}
    assert with_code == {*PAGES, *ELSEWHERE}
    for page, test in ELSEWHERE.items():
        assert page.removesuffix(".md").rpartition("/")[2] in (ROOT / test).read_text(encoding="utf-8"), page


def test_what_is_not_run_says_why():
    marked = [(page, block) for page in pages() for block in blocks_of(page) if block.mark]
    assert {page for page, block in marked if block.mark == "not run"} == {
        "docs/coming-from-avalanche.md",
        "docs/state-file.md",
    }
    assert all(len(block.why) > 20 for _, block in marked)


def readme(names, out):
    assert names["rwalk"].tasks == 4  # of the file, and protected
    assert names["strategy"].clock.train_exp_counter == 5
    assert "average_accuracy" in out


def quick_start(names, out):
    a, b = (float(line.split()[1].rstrip("%")) for line in out.splitlines()[:2])
    assert a > 75
    assert b > 90
    assert names["rwalk"].tasks == 1  # protected
    assert "300 samples" in out
    assert "import." in out  # the report's heading


def plain_pytorch(names, out):
    assert [rwalk.tasks for rwalk in names["group"].rwalks.values()] == [1, 1]


def accelerate(names, out):
    assert (names["rwalk"].tasks, names["rwalk"].steps) == (1, 10)
    assert names["rwalk"].optimizer is names["optimizer"].optimizer


def task_free(names, out):
    assert names["rwalk"].tasks >= 2


def lightning(names, out):
    assert names["walk"].rwalk.tasks == 1
    assert names["walk"].rwalk.penalty() == 0  # at the best weights
    anchors = {name: value.clone() for name, value in names["module"].state_dict().items()}
    best = torch.load(names["best"].best_model_path)["state_dict"]
    assert all(torch.equal(anchors[name], value) for name, value in best.items())


def choosing(names, out):
    assert "<- chosen" in out
    assert names["rwalk"].config.ewc_lambda > 0  # what suggest_lambda said


def protect(names, out):
    assert "300 samples, categorical, labels 'sampled', gradients by closed form" in out


def checkpoints(names, out):
    assert names["strategy"].clock.train_exp_counter == 5
    assert not list((names["folder"] / "checkpoints").glob("*.safetensors"))  # clear() took them


def state_file(names, out):
    assert {path.name for path in names["folder"].glob("*.safetensors")} == {"state.safetensors", "shipped.safetensors"}
    assert names["rwalk"].tasks == 1


def from_avalanche(names, out):
    assert names["strategy"].plugins[0].config.ewc_lambda == 0.1


def from_mammoth(names, out):
    model = names["RWalkModel"](names["model"], names["optimizer"], names["loss_function"])
    for task in names["tasks"]:
        model.meta_begin_task(task)
        for x, y in task:
            model.observe(x, y, x)
        model.meta_end_task(task)
    assert (model.rwalk.tasks, model.rwalk.steps) == (2, sum(map(len, names["tasks"])))
    assert model.rwalk.penalty() == 0  # the weights are at their anchor


def from_capymoa(names, out):
    assert (names["rwalk"].tasks, names["rwalk"].config.penalty_factor) == (2, 0.5)


def pictures(names, out):
    """By hand and by the object: the same importance."""
    assert torch.allclose(names["by_hand"], names["rwalk"].importances()["theta"], rtol=1e-5)


CHECKS = {
    "README.md": readme,
    "docs/checkpoints.md": checkpoints,
    "docs/choosing.md": choosing,
    "docs/coming-from-avalanche.md": from_avalanche,
    "docs/coming-from-capymoa.md": from_capymoa,
    "docs/coming-from-mammoth.md": from_mammoth,
    "docs/integrations/accelerate.md": accelerate,
    "docs/integrations/lightning.md": lightning,
    "docs/integrations/plain-pytorch.md": plain_pytorch,
    "docs/integrations/task-free.md": task_free,
    "docs/pictures.md": pictures,
    "docs/protect.md": protect,
    "docs/quick-start.md": quick_start,
    "docs/state-file.md": state_file,
}
