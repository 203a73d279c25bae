"""The comparisons of the examples: how strengths are chosen, and that stored tables are what the pages show."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
STORED = sorted((ROOT / "examples" / "results").glob("*.json"))
PAGES = {"lora_base": "integrations/peft.md"}


@pytest.fixture(scope="module")
def keeping():
    spec = importlib.util.spec_from_file_location("keeping", ROOT / "examples" / "keeping.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def problem(keeping, figures, **options):
    """Whose figures depend on a strength alone, by a table."""
    model = nn.Linear(1, 1)
    seen = []

    def way(problem, model, optimizer, strength, seed):
        seen.append(strength)

    return keeping.Problem(
        name="a table",
        start=lambda seed: model,
        samples=lambda seed: [(torch.ones(2, 1), torch.ones(2, 1))],
        old_loss=lambda model, batch: (model(batch[0]) - batch[1]).square().mean(),
        head=lambda model: model.parameters(),
        learn=lambda *_: None,
        score=lambda model, seed, held_out: figures[seen[-1]] if seen else figures[0],
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        strengths={"way": [s for s in figures if s]},
        ways={"way": way},
        **options,
    )


def test_a_strength_may_cost_b_so_much_and_no_more(keeping):
    table = {0: (50.0, 90.0), 1.0: (60.0, 89.0), 2.0: (70.0, 88.6), 3.0: (90.0, 88.4)}
    assert keeping.choose(problem(keeping, table), "way", 90.0, lambda text: None) == 2.0
    assert keeping.choose(problem(keeping, table, less_is_better=True), "way", 90.0, lambda text: None) == 1.0
    assert keeping.choose(problem(keeping, table), "way", 99.0, lambda text: None) == 1.0  # all cost too much


def test_a_strength_at_the_end_of_those_tried_is_told(keeping):
    told = []
    keeping.choose(problem(keeping, {0: (0.0, 0.0), 1.0: (1.0, 0.0), 2.0: (2.0, 0.0)}), "way", 0.0, told.append)
    assert "at the end of those tried" in told[-1]


@pytest.mark.parametrize("way", ["starting_point", "elastic"])
def test_twins_of_peers_add_the_gradient_of_their_penalty(keeping, way):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    case = problem(keeping, {0: (0.0, 0.0)})
    inside = torch.autograd.grad(case.old_loss(model, case.samples(0)[0]), list(model.parameters()))
    fisher = [g.square() for g in inside]
    largest = max(float(f.max()) for f in fisher)
    weights = [f / largest for f in fisher] if way == "elastic" else [torch.ones(())] * 2
    getattr(keeping, way)(case, model, optimizer, 3.0, 0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5)
            p.grad = torch.zeros_like(p)
    optimizer.step()
    for p, weight in zip(model.parameters(), weights, strict=True):
        torch.testing.assert_close(p.grad, 2 * 3.0 * 0.5 * weight.expand_as(p))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_pages_show_the_tables_that_are_stored(keeping, path):
    page = (ROOT / "docs" / PAGES.get(path.stem, "protect.md")).read_text()
    for report in json.loads(path.read_text()):
        assert not report["quick"]
        assert keeping.markdown(report).partition("\n\n")[2] in page
